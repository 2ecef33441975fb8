"""Every rule complains of what cannot be, and of nothing else."""

from __future__ import annotations

import pytest

from quantlab.hardware.device import Device
from quantlab.records import (
    BaselineRun,
    DivergenceRecord,
    Estimate,
    Failure,
    MeasureRecord,
    MemoryRecord,
    QuantizeRecord,
    Roofline,
    RoundToNearest,
    SpeedPoint,
    SpeedRecord,
)
from quantlab.records.measured import GpuUse, Median, Sample, SampledMemory
from quantlab.verification import rules

MEMORY = MemoryRecord(
    disk_bytes=100,
    weights_bytes=100,
    kv_cache_bytes=10,
    empty_process_rss_bytes=500,
    loaded_process_rss_bytes=600,
    peak_process_rss_bytes=700,
    peak_allocated_bytes=150,
    peak_reserved_bytes=200,
)


def seen(tree: int | None, used: int | None = None, before: int | None = None) -> SampledMemory:
    def look(tree_bytes: int | None, used_bytes: int | None) -> Sample:
        use = GpuUse(uuid="GPU-0", name="card", tree_bytes=tree_bytes, used_bytes=used_bytes)
        return Sample(step="decode", seconds=1, tree_rss_bytes=1, tree_pss_bytes=1, gpus=(use,))

    peak = look(tree, used)
    return SampledMemory(
        asked_interval_seconds=0.01,
        interval_seconds=0.01,
        pss_interval_seconds=0.01,
        samples=3,
        before=look(None, before),
        peak=peak,
        last=peak,
    )


@pytest.mark.parametrize(
    ("change", "driver", "said"),
    [
        ({}, seen(300), None),
        ({}, seen(None, used=1300, before=1000), None),
        ({"peak_allocated_bytes": 201}, seen(300), "allocated (201 bytes) is more than reserved (200 bytes)"),
        ({}, seen(199), "reserved (200 bytes) is more than the driver's figure (199 bytes)"),
        ({}, seen(None, used=1100, before=1000), "is more than the driver's figure (100 bytes)"),
        ({"weights_bytes": 151}, seen(300), "weights (151 bytes) is more than allocated"),
        (
            {"peak_allocated_bytes": None, "peak_reserved_bytes": None},
            seen(99),
            "weights (100 bytes) is more",
        ),
        ({}, seen(None), "the driver told no memory"),
        ({}, None, "the driver told no memory"),
    ],
)
def test_memory_on_a_gpu_is_in_order(
    change: dict[str, int | None], driver: SampledMemory | None, said: str | None
) -> None:
    complaints = rules.memory_order(MEMORY.model_copy(update=change), driver, gpu=True)
    assert any(said in complaint for complaint in complaints) if said else not complaints


def test_memory_on_a_cpu_is_in_order() -> None:
    assert not rules.memory_order(MEMORY, None, gpu=False)
    assert rules.memory_order(MEMORY.model_copy(update={"weights_bytes": 701}), None, gpu=False)


def test_bytes_are_those_of_the_formula() -> None:
    assert not rules.same_bytes("the cache", 1005, 1000)
    assert not rules.same_bytes("the cache", None, 1000) and not rules.same_bytes("the cache", 5, None)
    for wrong in (980, 1020):
        assert rules.same_bytes("the cache", wrong, 1000) == [
            f"the cache: {wrong:,} bytes measured, 1,000 by the formula"
        ]


def test_nothing_holds_more_than_the_device(cpu: Device, gpu: Device) -> None:
    over = {"peak_process_rss_bytes": cpu.memory_bytes + 1, "process_vram_bytes": gpu.memory_bytes + 1}
    assert not rules.within_device(cpu, MEMORY)
    assert not rules.within_device(gpu, MEMORY)
    assert rules.within_device(cpu, MEMORY.model_copy(update=over))
    assert rules.within_device(gpu, MEMORY.model_copy(update=over))


def _speed(kernel: str = "Packed × 28", beside: str = "Linear × 29", **point: object) -> SpeedRecord:
    middle = Median(value=50.0, low=49, high=51, coverage=0.75, n=3)
    made: dict[str, object] = {"batch": 1, "context_tokens": 0, "prompt_tokens": 8, "decode_tokens": 4}
    whole = SpeedPoint.model_validate(made | {"decode_rate": middle} | point)
    baseline = BaselineRun(
        variant="x-16", checkpoint_sha256="0" * 64, pairing="alternating", kernel=beside, dtype="bfloat16"
    )
    return SpeedRecord(
        kernel=kernel, dtype="bfloat16", threads=None, load_seconds=1, points=(whole,), baseline=baseline
    )


def test_every_workload_ran() -> None:
    def record(speed: SpeedRecord) -> MeasureRecord:
        return MeasureRecord(model="wide", variant="x-4", speed=speed)

    assert not rules.points_ran(record(_speed()))
    assert rules.points_ran(record(_speed(decode_rate=None))) == ["batch 1, context 0: no decode was timed"]
    failure = Failure(kind="out_of_memory", reason="none left")
    assert rules.points_ran(record(_speed(failure=failure))) == ["batch 1, context 0: none left"]


def test_no_decode_beats_the_bandwidth_of_a_gpu() -> None:
    def speed(share: float) -> SpeedRecord:
        ceiling = {"weight_bytes_per_step": 1, "cache_bytes_per_step": 1, "tokens_per_second": 9.0}
        return _speed(roofline=Roofline.model_validate(ceiling | {"share": share}))

    assert not rules.below_ceiling(speed(0.9), gpu=True)
    assert not rules.below_ceiling(speed(1.4), gpu=False)
    assert rules.below_ceiling(speed(1.4), gpu=True)


@pytest.mark.parametrize(
    ("kernel", "packed", "said"),
    [
        ("Packed × 28, Linear × 1 (a library's kernel)", True, None),
        ("Linear × 29", False, None),
        ("unknown", False, "does not name"),
        ("", True, "does not name"),
        ("Linear × 29", True, "the unquantized model's kernel ran"),
    ],
)
def test_the_kernel_is_named_and_is_the_quantized_one(kernel: str, packed: bool, said: str | None) -> None:
    complaints = rules.kernel_named(_speed(kernel), packed)
    assert any(said in complaint for complaint in complaints) if said else not complaints


@pytest.mark.parametrize(
    ("planned", "on_gpu", "on_cpu"),
    [(101, False, False), (120, True, True), (80, True, False), (None, False, False)],
)
def test_the_weights_in_memory_are_the_checkpoints(planned: int | None, on_gpu: bool, on_cpu: bool) -> None:
    """100 bytes are in memory; a processor's kernels may take more than is stored."""
    assert bool(rules.resident(MEMORY, planned, gpu=True)) == on_gpu
    assert bool(rules.resident(MEMORY, planned, gpu=False)) == on_cpu


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, None),
        ({"loss_in_memory_nats": None}, None),
        ({"quantized_layers": 27}, "27 layers are quantized of 28"),
        ({"loss_reloaded_nats": 5.2}, "5.000 nats in memory and 5.200 after reloading"),
        ({"loss_reloaded_nats": None}, "not loaded again"),
    ],
)
def test_what_was_saved_is_what_was_made(change: dict[str, float | None], said: str | None) -> None:
    whole = {"quantized_layers": 28, "expected_layers": 28, "loss_in_memory_nats": 5.0}
    whole |= {"loss_reloaded_nats": 5.01, "loss_tolerance_nats": 0.05}
    record = QuantizeRecord.model_validate({"model": "wide", "variant": "x-4"} | whole | change)
    complaints = rules.reloaded(record)
    assert any(said in complaint for complaint in complaints) if said else not complaints


def _diverged(nats: float, rounded: float | None = None) -> DivergenceRecord:
    beside = None
    if rounded is not None:
        beside = RoundToNearest(
            bits=4,
            group_size=128,
            symmetric=True,
            windows=4,
            kinds=("linear",),
            kl_divergence_nats=rounded,
            variant_kl_divergence_nats=nats,
        )
    mean = Estimate(value=nats, standard_error=None, n=4)
    return DivergenceRecord(
        model="wide",
        variant="x-4",
        kl_divergence_nats=mean,
        round_to_nearest=beside,
        round_to_nearest_reason=None if beside else "it was not computed",
    )


@pytest.mark.parametrize(
    ("record", "bits", "said"),
    [
        (_diverged(0.002), 16, None),
        (_diverged(0.02), 16, "an unquantized model against itself"),
        (_diverged(0.01), 8, None),
        (_diverged(0.2), 8, "rounding to 8 bits loses less"),
        (_diverged(0.10, rounded=0.09), 4, None),
        (_diverged(0.30, rounded=0.09), 4, "plain rounding to nearest loses 0.0900"),
        (_diverged(0.10), 4, "no rounding to nearest beside it: it was not computed"),
    ],
)
def test_a_divergence_is_one_of_rounding(record: DivergenceRecord, bits: int, said: str | None) -> None:
    complaints = rules.divergence_small(record, bits)
    assert any(said in complaint for complaint in complaints) if said else not complaints


def test_answers_are_there_and_the_same_for_the_same_prompt() -> None:
    assert not rules.answers_whole([(1, 2), (), (1, 2), ()])
    assert rules.answers_whole([(), (), (), ()]) == ["nothing was generated"]
    assert rules.answers_whole([(1, 2), (3,), (1, 4), (3,)]) == [
        "the same prompt twice in a batch was answered differently"
    ]
