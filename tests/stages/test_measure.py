"""The measure stage on the small trained model: what is in the record, what a failure leaves, what stands
beside it."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from quantlab import outside
from quantlab.files import write_text
from quantlab.hardware.device import Device, find
from quantlab.measuring import beside, memory
from quantlab.measuring.worker_client import GridPoint, Worker
from quantlab.progress import Progress
from quantlab.records import MeasureRecord
from quantlab.stages import measure, quantize
from quantlab.workspace.cell import Cell

pytestmark = pytest.mark.slow
QUIET = Progress(quiet=True)
LAYERS, KV_HEADS, WIDTH = 4, 2, 64


@pytest.fixture(scope="module")
def device() -> Device:
    return find("cpu")


@pytest.fixture
def with_recipe(workspace: Path) -> Iterator[Callable[..., None]]:
    """Change sections of the recipe for one test."""
    path = workspace / "recipes" / "small.yaml"
    kept = path.read_text()
    yield lambda **sections: write_text(path, yaml.safe_dump(yaml.safe_load(kept) | sections))
    write_text(path, kept)


@pytest.fixture(scope="module")
def measured(workspace: Path, device: Device) -> Callable[[str], MeasureRecord]:
    """The record of a variant, quantized and measured once, the baseline first."""
    done: dict[str, MeasureRecord] = {}

    def record(slug: str) -> MeasureRecord:
        if slug not in done:
            for name in dict.fromkeys(("baseline-16", slug)):
                if not (workspace / "checkpoints" / "small" / name).exists():
                    quantize.run(Cell(workspace, "small", name), device, QUIET)
            done[slug] = measure.run(Cell(workspace, "small", slug), device, QUIET)
        return done[slug]

    return record


def test_memory_is_kept_apart(measured: Callable[[str], MeasureRecord]) -> None:
    record = measured("bitsandbytes-8")
    point, seen = record.speed.points[0], record.sampled
    assert record.failure is None and seen and seen.empty and seen.loaded
    assert [step.step for step in seen.steps] == ["importing", "loading", "prefill b1 c0", "decode b1 c0"]
    tokens = 16 + 4
    # the model is stored in bfloat16, and bitsandbytes computes in its own dtype
    assert point.kv_cache_bytes == point.kv_cache_formula_bytes
    assert (
        point.kv_cache_bytes in {2 * LAYERS * KV_HEADS * WIDTH * tokens * size for size in (2, 4)}
        and point.state_bytes == 0
    )
    assert 0 < seen.empty.tree_rss_bytes < seen.loaded.tree_rss_bytes <= seen.peak.tree_rss_bytes
    assert seen.peak_above_empty_bytes and 0 < seen.peak_above_empty_bytes < seen.peak.tree_rss_bytes
    assert record.memory.cache_dtype == record.speed.dtype and seen.last.step == "timed repeats"


def test_the_16_bit_variant_runs_in_turn(measured: Callable[[str], MeasureRecord]) -> None:
    record, base = measured("bitsandbytes-8"), measured("baseline-16")
    point = record.speed.points[0]
    assert (
        record.speed.baseline
        and record.speed.baseline.variant == "baseline-16"
        and record.speed.baseline.pairing == "alternating"
    )
    assert record.speed.baseline.checkpoint_sha256 == base.checkpoint_sha256 != record.checkpoint_sha256
    assert len(point.decode_seconds) == len(point.baseline_decode_seconds) == len(point.prefill_seconds) == 2
    ratios = [b / a for a, b in zip(point.decode_seconds, point.baseline_decode_seconds, strict=True)]
    assert point.decode_ratio and point.decode_ratio.value == pytest.approx(sum(ratios) / 2)
    assert (
        base.speed.baseline is None
        and base.speed.baseline_reason is None
        and base.speed.points[0].decode_ratio is None
    )


def test_definitions_of_speed(measured: Callable[[str], MeasureRecord]) -> None:
    point = measured("baseline-16").speed.points[0]
    for rate, samples in (
        (point.decode_rate, point.decode_tokens_per_second),
        (point.prefill_rate, point.prefill_tokens_per_second),
    ):
        assert rate and (rate.low, rate.high, rate.n, rate.coverage) == (min(samples), max(samples), 2, 0.5)
    assert point.time_to_first_token and point.time_to_first_token.low == min(point.prefill_seconds)
    assert point.time_per_output_token and point.time_per_output_token.high == pytest.approx(
        max(point.decode_seconds) / 4
    )


def test_the_ceiling(measured: Callable[[str], MeasureRecord], workspace: Path) -> None:
    record = measured("baseline-16")
    roof, bandwidth = record.speed.points[0].roofline, record.speed.bandwidth
    assert roof and bandwidth and bandwidth.copied_bytes >= 2**20 and roof.share
    layer = 2 * 256 * 256 + 2 * 256 * 128 + 3 * 256 * 768 + 2 * 256  # attention, feed-forward, norms
    read = (
        LAYERS * layer + 256 + 2048 * 256
    )  # the final norm and the head, which is not tied to the embedding
    assert roof.weight_bytes_per_step == pytest.approx(
        2 * read, abs=1024
    )  # bfloat16; the rotary frequencies besides
    per_step = roof.weight_bytes_per_step + roof.cache_bytes_per_step
    assert roof.tokens_per_second == pytest.approx(bandwidth.measured_bytes_per_second / per_step)
    assert roof.cache_bytes_per_step == pytest.approx(record.speed.points[0].kv_cache_bytes * 18 / 20)
    assert (workspace / ".quantlab" / "bandwidth.json").exists()


def test_energy_that_was_not_measured_has_a_reason(measured: Callable[[str], MeasureRecord]) -> None:
    speed = measured("baseline-16").speed
    assert speed.points[0].decode_joules_per_token is not None or speed.energy_reason
    assert speed.energy_source or speed.energy_reason


def test_a_grid_goes_on_past_what_does_not_run(
    workspace: Path,
    device: Device,
    measured: Any,
    with_recipe: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The process is killed at batch 2 and started again for batch 3; a context of 4,096 is longer than the
    model's."""
    measured("baseline-16")
    spec = {
        "prompt_tokens": 16,
        "decode_tokens": 4,
        "repeats": 1,
        "batch": [3, 1, 2],
        "context": [4096, 0],
        "price_per_device_hour": 3.6,
    }
    with_recipe(measure=spec)
    decode = Worker.decode

    def killed(self: Worker, work: GridPoint) -> dict[str, Any]:
        if work.batch == 2:
            os.kill(self.pid, signal.SIGKILL)
        return decode(self, work)

    monkeypatch.setattr(Worker, "decode", killed)
    monkeypatch.setattr(
        outside, "memory_kills", lambda: None
    )  # nobody counts kills for want of memory: it is taken for one
    record = measure.run(Cell(workspace, "small", "baseline-16"), device, QUIET)
    points = record.speed.points
    assert [(p.batch, p.context_tokens) for p in points] == [(b, c) for c in (0, 4096) for b in (1, 2, 3)]
    assert [p.failure and p.failure.kind for p in points] == [
        None,
        "out_of_memory",
        None,
        *["unsupported"] * 3,
    ]
    assert (
        record.died_in == "decode b2 c0"
        and points[1].failure.reason.endswith("in decode b2 c0")
        and not points[1].decode_seconds
    )
    assert "4,116 tokens are more than the 2,048" in points[3].failure.reason
    assert points[2].kv_cache_bytes == 3 * points[0].kv_cache_bytes == points[2].kv_cache_formula_bytes
    for point in (points[0], points[2]):
        assert point.decode_rate and point.dollars_per_million_tokens == pytest.approx(
            3.6 / 3600 / point.decode_rate.value * 1e6
        )


def test_a_process_that_is_killed_while_loading_leaves_its_last_look(
    workspace: Path, device: Device, measured: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured("baseline-16")
    monkeypatch.setattr(Worker, "open_device", lambda self: {"rss_bytes": 1})

    def killed(self: Worker) -> dict[str, Any]:
        time.sleep(1)
        os.kill(self.pid, signal.SIGKILL)
        return self._ask(do="load")

    monkeypatch.setattr(Worker, "load", killed)
    record = measure.run(Cell(workspace, "small", "baseline-16"), device, QUIET)
    assert record.failure and record.failure.kind == "killed" and record.died_in == "loading"
    assert (
        "it last held" in record.failure.reason
        and record.sampled
        and record.sampled.last.tree_rss_bytes > 2**20
    )
    assert record.speed is None and record.memory is None


def test_without_a_16_bit_checkpoint_the_reason_is_told(workspace: Path, device: Device) -> None:
    found = beside.sixteen_bit(Cell(workspace, "small", "gguf-4"), "llama_cpp")
    assert found.cell is None and found.reason and "gguf-16" in found.reason and "quantize" in found.reason
    assert memory.Held(GridPoint(1, 0, 1, 1)).failure is None


@pytest.mark.skipif(sys.platform != "linux", reason="a waiting process is stopped on Linux alone")
def test_a_process_that_waits_takes_no_core(
    workspace: Path, measured: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else OMP_WAIT_POLICY=active lets its idle threads spin beside the process whose turn it is."""
    measured("baseline-16")
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    with Worker(Cell(workspace, "small", "baseline-16"), "transformers", "cpu") as worker:
        for ask in (worker.open_device, worker.load, lambda: worker.prefill(GridPoint(1, 0, 16, 4))):
            ask()
            deadline = time.monotonic() + 10
            while psutil.Process(worker.pid).status() != psutil.STATUS_STOPPED:
                assert time.monotonic() < deadline, "it runs on"
                time.sleep(0.01)
        began = time.monotonic()
    assert time.monotonic() - began < 20 and not psutil.pid_exists(worker.pid)
