"""What is kept where a workload costs the process, and what memory is left beside it."""

from __future__ import annotations

import os
from typing import Any

import pytest

from quantlab import engines
from quantlab.errors import CellFailure
from quantlab.measuring.memory import hold
from quantlab.measuring.worker_client import GridPoint, WorkerDied
from quantlab.progress import Progress

WORKS = [GridPoint(batch, 0, 8, 4) for batch in (1, 2, 3)]
SIZES = dict.fromkeys(
    ("kv_cache_bytes", "state_bytes", "peak_rss_bytes", "peak_allocated_bytes", "peak_reserved_bytes"), 7
)


class Sampler:
    """One that sees nothing."""

    def watch(self, pid: int, step: str) -> None: ...

    def step(self, step: str) -> None: ...


class Worker:
    """A process that fails at batch 2 and, where `stays_down`, does not load again."""

    pid = 1
    about = {"context_tokens": None}

    def __init__(self, error: CellFailure, stays_down: bool) -> None:
        self.fit, self.error, self.stays_down, self.restarts = True, error, stays_down, 0

    def clear(self) -> None: ...

    def prefill(self, work: GridPoint) -> None:
        if work.batch == 2:
            self.fit = self.error.kind == "does_not_fit"
            raise self.error

    def decode(self, work: GridPoint) -> dict[str, int]:
        return SIZES

    def restart(self) -> None:
        self.restarts += 1

    def open_device(self) -> dict[str, int]:
        return {"rss_bytes": 1}

    def load(self) -> None:
        if self.stays_down:
            raise CellFailure("out_of_memory", "no memory left")
        self.fit = True


def _hold(worker: Any) -> list[Any]:
    sampler: Any = Sampler()
    with Progress(quiet=True).step("memory", len(WORKS)) as step:
        return hold(worker, sampler, WORKS, step)


def test_what_was_found_stays_where_the_checkpoint_does_not_load_again() -> None:
    found = _hold(Worker(WorkerDied("out_of_memory", "killed"), stays_down=True))
    assert [h.work for h in found] == WORKS and found[0].kv_cache_bytes == 7 and found[0].failure is None
    assert found[1].died_in == "prefill b2 c0" and found[2].failure
    assert (
        found[2].failure.reason
        == "not run: the checkpoint did not load again after b2 c0 had failed: no memory left"
    )


@pytest.mark.parametrize(("kind", "restarts"), [("crashed", 1), ("does_not_fit", 0)])
def test_a_process_with_an_unexpected_error_is_not_used_again(kind: Any, restarts: int) -> None:
    worker = Worker(
        CellFailure(kind, "CUDA error: an illegal memory access was encountered"), stays_down=False
    )
    found = _hold(worker)
    assert worker.restarts == restarts and [bool(h.failure) for h in found] == [False, True, False]


def test_vllms_worker_sees_its_gpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    seen, device = engines.load("vllm").place("cuda:2,0", {**os.environ, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"})
    assert (
        seen["CUDA_VISIBLE_DEVICES"] == "6,4"
        and device == "cuda:0,1"
        and seen["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    )
    assert engines.load("transformers").place("cuda:2", os.environ).device == "cuda:2"
    assert engines.load("vllm").place("cpu", os.environ).device == "cpu"
