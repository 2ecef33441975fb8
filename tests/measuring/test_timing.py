"""Who runs when: turns, one after the other, and what a failing 16-bit variant does to the other's
figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from quantlab.errors import CellFailure
from quantlab.hardware.device import Device, find
from quantlab.hardware.energy import Meter
from quantlab.measuring import speed, timing
from quantlab.measuring.beside import Beside
from quantlab.measuring.memory import Held
from quantlab.measuring.worker_client import GridPoint, WorkerDied
from quantlab.progress import Progress
from quantlab.workspace.cell import Cell

WORK = GridPoint(batch=1, context=0, prompt=8, decode=4)
METER = Meter((), reason="none")


class FakeWorker:
    """A worker that writes down what it was asked for, and takes a second for a prefill and two for a
    decode."""

    events: list[str] = []
    fails_at: dict[str, str] = {}

    fit = True
    dies_at: dict[str, int] = {}
    """In which decode the process dies, by variant."""

    tokens: list[int] = []
    """Of the longest sequence that each was opened for, in order."""

    def __init__(self, cell: Cell, engine: str, device: str, tokens: int, sequences: int = 1) -> None:
        self.events.append(f"{cell.variant.slug} start")
        self.tokens.append(tokens)
        self.cell, self.engine, self.last = cell, engine, None
        self.about = {"kernel": "k", "dtype": "d", "weights_bytes": 1}

    def __enter__(self) -> FakeWorker:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _do(self, what: str) -> dict[str, float]:
        name = self.cell.variant.slug
        self.events.append(f"{name} {what}")
        if self.fails_at.get(name) == what:
            raise CellFailure("out_of_memory", "too large")
        if what == "decode" and self.events.count(f"{name} decode") == self.dies_at.get(name):
            raise WorkerDied("out_of_memory", "killed")
        return {"seconds": 1.0 if what == "prefill" else 2.0}

    def last_words(self) -> str:
        return "it last held 1.00 GB of memory"

    def open_device(self) -> None: ...

    def load(self) -> None:
        self._do("load")

    def close(self) -> None:
        self._do("close")

    def warm_up(self, work: GridPoint) -> None:
        if self.last != work:
            self.last = work
            self._do("warm-up")

    def prefill(self, work: GridPoint) -> dict[str, float]:
        return self._do("prefill")

    def decode(self, work: GridPoint) -> dict[str, float]:
        return self._do("decode")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "recipes").mkdir()
    recipe = {
        "model": "m",
        "source": {"path": "/m"},
        "measure": {"repeats": 3},
        "variants": {"gptq-4": {}, "baseline-16": {}},
    }
    (tmp_path / "recipes" / "m.yaml").write_text(yaml.safe_dump(recipe))
    cell, other = Cell(tmp_path, "m", "gptq-4"), Cell(tmp_path, "m", "baseline-16")
    monkeypatch.setattr(other, "checkpoint", lambda: type("C", (), {"sha256": "abc"})())
    monkeypatch.setattr(timing, "Worker", FakeWorker)
    monkeypatch.setattr(timing, "sixteen_bit", lambda cell, engine: Beside(other))
    monkeypatch.setattr(speed, "_PAUSE_SECONDS", 0)
    monkeypatch.setattr(FakeWorker, "events", [])
    monkeypatch.setattr(FakeWorker, "tokens", [])
    monkeypatch.setattr(FakeWorker, "dies_at", {})
    device: Device = find("cpu")

    def time_all(together: bool, fails_at: dict[str, str] | None = None) -> timing.Timed:
        monkeypatch.setattr(timing, "fit_together", lambda *_: together)
        monkeypatch.setattr(FakeWorker, "fails_at", fails_at or {})
        worker: Any = FakeWorker(cell, "transformers", "cpu", WORK.tokens)
        return timing.time_all(cell, device, worker, [Held(WORK)], None, METER, Progress(quiet=True))

    return time_all


def test_gpu_row_9_both_variants_are_opened_for_the_longest_workload(run: Any) -> None:
    """One more than prompt and decode: the prefill's last logits give a token, too."""
    run(together=True)
    run(together=False)
    assert (
        set(FakeWorker.tokens) == {WORK.context + WORK.prompt + 1 + WORK.decode}
        and len(FakeWorker.tokens) == 4
    )


def test_repeats_alternate(run: Any) -> None:
    found = run(together=True)
    timed = [event for event in FakeWorker.events if event.split()[1] in ("prefill", "decode")]
    assert timed == ["gptq-4 prefill", "gptq-4 decode", "baseline-16 prefill", "baseline-16 decode"] * 3
    assert (
        found.baseline.pairing == "alternating"
        and found.baseline.checkpoint_sha256 == "abc"
        and found.reason is None
    )
    assert [len(side.repeats) for side in found.turns[WORK]] == [3, 3]
    assert FakeWorker.events.count("gptq-4 warm-up") == FakeWorker.events.count("baseline-16 warm-up") == 1


def test_where_both_do_not_fit_one_is_gone_before_the_other_loads(run: Any) -> None:
    found = run(together=False)
    events = FakeWorker.events
    assert (
        events.index("gptq-4 close") < events.index("baseline-16 start") < events.index("baseline-16 load")
        and "baseline-16 prefill" not in events[: events.index("gptq-4 close")]
    )
    assert found.baseline.pairing == "sequential" and [len(side.repeats) for side in found.turns[WORK]] == [
        3,
        3,
    ]


@pytest.mark.parametrize("together", [True, False])
def test_a_16_bit_variant_that_does_not_load_is_a_reason(run: Any, together: bool) -> None:
    found = run(together, {"baseline-16": "load"})
    assert found.baseline is None and "baseline-16 does not load beside it: too large" in found.reason
    assert len(found.turns[WORK].variant.repeats) == 3 and found.turns[WORK].baseline is None


def test_a_16_bit_variant_that_fails_at_a_point_costs_only_its_own_figures(run: Any) -> None:
    turns = run(True, {"baseline-16": "decode"}).turns[WORK]
    assert (
        len(turns.variant.repeats) == 3
        and turns.baseline.repeats == ()
        and turns.baseline.failure.kind == "out_of_memory"
    )


def test_a_variant_that_fails_at_a_point_has_its_failure(run: Any) -> None:
    turns = run(True, {"gptq-4": "decode"}).turns[WORK]
    assert (
        turns.variant.failure.reason == "too large" and turns.variant.repeats == () and turns.baseline is None
    )


@pytest.mark.parametrize("together", [True, False])
def test_repeats_that_were_taken_before_a_death_stay(
    run: Any, together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeWorker, "dies_at", {"gptq-4": 3})
    variant = run(together).turns[WORK].variant
    assert len(variant.repeats) == 2 and variant.died_in == "timed repeats b1 c0"
    assert variant.failure.reason == "killed; it last held 1.00 GB of memory"


def test_pairs_that_were_taken_before_the_16_bit_variant_died_stay(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeWorker, "dies_at", {"baseline-16": 2})
    turns = run(True).turns[WORK]
    assert (
        (len(turns.variant.repeats), len(turns.baseline.repeats)) == (3, 1)
        and turns.variant.failure is None
        and turns.baseline.failure
    )


def test_a_process_that_the_last_workload_cost_is_there_again_before_free_memory_is_read(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeWorker, "fit", False)
    run(True)
    assert FakeWorker.events[1] == "gptq-4 warm-up" and FakeWorker.events.index("baseline-16 start") > 1
