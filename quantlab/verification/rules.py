"""Judge records: pure functions that give one sentence for each thing that cannot be."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from quantlab.hardware.device import Device
from quantlab.numbers import significant
from quantlab.records import DivergenceRecord, MeasureRecord, MemoryRecord, QuantizeRecord, SpeedRecord
from quantlab.records.measured import SampledMemory

FORMULA_SHARE = 0.01
"""By how much of a formula's bytes a measurement may differ: headers, padding and small buffers."""
FLOOR_NATS = 0.01
"""bfloat16 against float32 is about 0.001 nats on trained models; a wrong kernel loses tenths."""
MANY_BITS_NATS = 0.05
"""What more than 4 bits may lose of a random model, which no rounding to nearest is computed for."""
ROUNDING_TIMES = 2.0
"""Times the loss of rounding, on top of that, that a random model may lose at 4 bits and fewer: methods round
embedding and head as well, and a random model forgives less than a trained one. What is wrong loses whole
nats."""
RESIDENT_SHARE = 0.05
"""By how much weights in memory may differ from the checkpoint's: workspaces, padding."""


def driver_bytes(seen: SampledMemory | None) -> int | None:
    """Peak on the GPU as the driver told it: of the process tree, else the change of the whole device."""
    if seen is None:
        return None
    return seen.device_change_bytes if seen.peak_vram_bytes is None else seen.peak_vram_bytes


def memory_order(memory: MemoryRecord, seen: SampledMemory | None, gpu: bool) -> list[str]:
    """Weights <= allocated <= reserved <= what the driver saw; on a CPU weights <= resident memory."""
    if not gpu:
        return _ascending([("weights", memory.weights_bytes), ("resident", memory.peak_process_rss_bytes)])
    seen_bytes = driver_bytes(seen)
    told = [] if seen_bytes is not None else ["the driver told no memory of the process or the GPU"]
    steps = [
        ("weights", memory.weights_bytes),
        ("allocated", memory.peak_allocated_bytes),
        ("reserved", memory.peak_reserved_bytes),
        ("the driver's figure", seen_bytes),
    ]
    return told + _ascending(steps)


def _ascending(steps: Sequence[tuple[str, int | None]]) -> list[str]:
    known = [(name, size) for name, size in steps if size is not None]
    return [
        f"{name} ({size:,} bytes) is more than {above} ({more:,} bytes)"
        for (name, size), (above, more) in itertools.pairwise(known)
        if size > more
    ]


def same_bytes(what: str, measured: int | None, formula: int | None) -> list[str]:
    """A measurement and its formula; nothing where one of them is not known."""
    if measured is None or formula is None or abs(measured - formula) <= FORMULA_SHARE * formula:
        return []
    return [f"{what}: {measured:,} bytes measured, {formula:,} by the formula"]


def points_ran(record: MeasureRecord) -> list[str]:
    """Every workload ran, and its repeats took time."""
    assert record.speed is not None
    said = []
    for point in record.speed.points:
        where = f"batch {point.batch}, context {point.context_tokens}"
        if point.failure:
            said.append(f"{where}: {point.failure.reason}")
        elif point.decode_rate is None or point.decode_rate.value <= 0:
            said.append(f"{where}: no decode was timed")
    return said


def below_ceiling(speed: SpeedRecord, gpu: bool) -> list[str]:
    """No decode on a GPU beats the bandwidth that was measured; a processor's cache can hold these models."""
    shares = [p.roofline.share for p in speed.points if p.roofline and p.roofline.share]
    if not gpu or not shares or max(shares) <= 1.05:
        return []
    return [f"a decode reaches {max(shares):.2f} of what the measured bandwidth allows"]


def kernel_named(speed: SpeedRecord, packed: bool) -> list[str]:
    """The kernel is named; where layers are multiplied `packed`, it is not that of plain layers alone."""
    if not speed.kernel or "unknown" in speed.kernel:
        return ["the record does not name the kernel that ran"]
    return [f"the unquantized model's kernel ran: {speed.kernel}"] if packed and _plain(speed.kernel) else []


def _plain(kernel: str) -> bool:
    """Whether a kernel's name is that of layers that no library of quantization made."""
    return re.fullmatch(r"Linear × \d+", kernel) is not None


def resident(memory: MemoryRecord, planned: int | None, gpu: bool) -> list[str]:
    """The weights in memory are those of the checkpoint; on a CPU kernels may unpack or repack them into
    more."""
    held = memory.weights_bytes
    if held is None or planned is None or (held > planned and not gpu):
        return []
    if abs(held - planned) <= RESIDENT_SHARE * planned:
        return []
    return [f"{held:,} bytes of weights are in memory, the checkpoint has {planned:,}"]


def reloaded(record: QuantizeRecord) -> list[str]:
    """The saved checkpoint is what was quantized: as many layers, and the same loss where both are known."""
    said = []
    if record.expected_layers is not None and record.quantized_layers != record.expected_layers:
        said.append(f"{record.quantized_layers} layers are quantized of {record.expected_layers}")
    before, after, most = record.loss_in_memory_nats, record.loss_reloaded_nats, record.loss_tolerance_nats
    if after is None:
        said.append("the checkpoint was not loaded again")
    elif before is not None and not abs(after - before) <= (most or 0):
        said.append(f"the loss is {before:.3f} nats in memory and {after:.3f} after reloading")
    return said


def divergence_small(record: DivergenceRecord, bits: int) -> list[str]:
    """The divergence is one of rounding to so many bits: beside rounding to nearest where it was computed."""
    assert record.kl_divergence_nats is not None
    nats, rounded = record.kl_divergence_nats.value, record.round_to_nearest
    if bits >= 16:
        most, beside = FLOOR_NATS, "an unquantized model against itself"
    elif rounded is not None:
        nats = rounded.variant_kl_divergence_nats
        most = ROUNDING_TIMES * rounded.kl_divergence_nats + MANY_BITS_NATS
        beside = f"plain rounding to nearest loses {significant(rounded.kl_divergence_nats)}"
    elif bits > 4:
        most, beside = MANY_BITS_NATS, f"rounding to {bits} bits loses less than {MANY_BITS_NATS}"
    else:
        return [f"no rounding to nearest beside it: {record.round_to_nearest_reason}"]
    return [] if nats <= most else [f"it diverges by {significant(nats)} nats: {beside}"]


def answers_whole(answers: Sequence[tuple[int, ...]]) -> list[str]:
    """The second half of a batch asks what the first half did, and is answered alike; some answer has
    words."""
    half = len(answers) // 2
    said = [] if any(answers) else ["nothing was generated"]
    if list(answers[:half]) != list(answers[half:]):
        said.append("the same prompt twice in a batch was answered differently")
    return said


def within_device(device: Device, memory: MemoryRecord) -> list[str]:
    """Nothing holds more than the device has."""
    held = memory.process_vram_bytes if device.places.gpus else memory.peak_process_rss_bytes
    if held is None or held <= device.memory_bytes:
        return []
    return [f"{held:,} bytes were held, the device has {device.memory_bytes:,}"]
