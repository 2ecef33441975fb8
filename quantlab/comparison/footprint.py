"""Compute the bytes of a variant by kind, and what each kind saves. Kinds are never added up.

Disk is compared with the baseline's checkpoint, memory at run time with the 16-bit variant of the same
engine."""

from __future__ import annotations

from typing import NamedTuple

from quantlab.comparison.load import BASELINE, ModelRecords, VariantRecords
from quantlab.comparison.rates import comparable, same_point, same_workload
from quantlab.records import MeasureRecord, SpeedPoint


class Saving(NamedTuple):
    """Bytes and the share saved, each None with its reason."""

    bytes: int | None
    share: float | None
    """What is saved: 1 - variant / 16-bit."""
    reason: str | None
    """Why the first of the two that is None is."""

    @property
    def times_smaller(self) -> float | None:
        """What is saved as a factor."""
        return 1 / (1 - self.share) if self.share is not None else None


KINDS = (
    "weights_bytes",
    "kv_cache_bytes",
    "state_bytes",
    "peak_allocated_bytes",
    "peak_reserved_bytes",
    "process_vram_bytes",
    "vram_above_empty_bytes",
    "device_change_bytes",
    "peak_tree_pss_bytes",
    "tree_pss_above_empty_bytes",
    "peak_tree_rss_bytes",
    "tree_rss_above_empty_bytes",
    "peak_process_rss_bytes",
    "peak_above_empty_bytes",
)
"""Kinds of memory at run time, as the keys of the tables."""
_WHATEVER_RUNS = ("weights_bytes",)
_BYTES_AT_16_BITS = 2
_CLEARLY_ABOVE_16 = 16.5
"""Norms and tables of a 16-bit model that are stored in float32 add less than half a bit."""
_NOT_SHOWN = "the system does not show it"
_ABSENT = {
    "kv_cache_bytes": "no workload ran",
    "state_bytes": "the engine does not count it",
    "peak_allocated_bytes": "only CUDA's allocator counts it",
    "peak_reserved_bytes": "only CUDA's allocator counts it",
    "process_vram_bytes": "no GPU, or its driver does not say which process holds how much",
    "vram_above_empty_bytes": "no GPU, or its driver does not say which process holds how much",
    "device_change_bytes": "no GPU",
}


def disk(records: ModelRecords, variant: VariantRecords) -> Saving:
    """Bytes of all files of the checkpoint."""
    size = disk_bytes(variant)
    if size is None:
        return Saving(None, None, variant.why_not("quantize"))
    baseline_size = sixteen_bit_disk_bytes(records)
    if not baseline_size:
        return Saving(
            size, None, f"the saving is not measured: there is no size of {BASELINE} to compare with"
        )
    return Saving(size, 1 - size / baseline_size, None)


def sixteen_bit_disk_bytes(records: ModelRecords) -> int | None:
    """What the baseline takes on disk at 16 bits per weight: its files, with weights of float32 at half their
    size."""
    baseline = records.variants.get(BASELINE)
    size, wider = (disk_bytes(baseline), bits_above_16(records)) if baseline else (None, None)
    made = baseline.quantize if baseline else None
    if size is None or wider is None or made is None or made.stored_bytes is None or not made.parameters:
        return size
    return size - made.stored_bytes + _BYTES_AT_16_BITS * made.parameters


def bits_above_16(records: ModelRecords) -> float | None:
    """Bits per weight of the baseline where its weights are stored in more than 16, as in float32; else
    None."""
    baseline = records.variants.get(BASELINE)
    bits = baseline.quantize.bits_per_weight if baseline and baseline.quantize else None
    return bits if bits is not None and bits > _CLEARLY_ABOVE_16 else None


def runtime(records: ModelRecords, variant: VariantRecords, kind: str) -> Saving:
    """Bytes of one of KINDS at run time."""
    measured = variant.measure
    if measured is None or measured.failure or measured.memory is None:
        return Saving(None, None, variant.why_not("measure"))
    used = of_kind(measured, kind)
    if used is None:
        own = measured.memory.weights_reason if kind == "weights_bytes" else None
        return Saving(None, None, own or _ABSENT.get(kind, _NOT_SHOWN))
    base = comparable(records, variant)
    if base.record is None or base.record.memory is None:
        return Saving(used, None, base.reason or "not compared: the 16-bit variant has no memory measurement")
    if kind not in _WHATEVER_RUNS and not same_workload(measured, base.record):
        return Saving(used, None, "not compared: the 16-bit variant ran another workload")
    baseline_used = _their_bytes(measured, base.record, kind)
    if baseline_used == 0 == used:
        return Saving(used, None, None)  # nothing there, nothing to save
    return (
        Saving(used, 1 - used / baseline_used, None)
        if baseline_used
        else Saving(used, None, "not compared: the 16-bit variant has none of this kind")
    )


def _their_bytes(measured: MeasureRecord, baseline: MeasureRecord, kind: str) -> int | None:
    """The 16-bit variant's, of the cache and state at the same workload."""
    point = largest_cache(measured)
    if kind not in ("kv_cache_bytes", "state_bytes") or point is None:
        return of_kind(baseline, kind)
    baseline_point = same_point(baseline, point)
    value: int | None = getattr(baseline_point, kind) if baseline_point else None
    return value


def largest_cache(record: MeasureRecord) -> SpeedPoint | None:
    """The workload whose cache the memory record shows; None where the record is too old to say."""
    points = [p for p in (record.speed.points if record.speed else ()) if p.kv_cache_bytes is not None]
    return max(points, key=lambda p: p.kv_cache_bytes or 0, default=None)


def peak_kind(records: ModelRecords) -> str:
    """The kind that stands for the peak in the summary: the driver's account where every measured variant has
    one, else the process's."""
    memories = [v.measure.memory for v in records.variants.values() if v.measure and v.measure.memory]
    on_device = bool(memories) and all(m.process_vram_bytes is not None for m in memories)
    return "process_vram_bytes" if on_device else "peak_process_rss_bytes"


def of_kind(record: MeasureRecord, kind: str) -> int | None:
    """One kind of bytes out of a record."""
    memory, seen = record.memory, record.sampled
    if memory is None:
        return None
    if kind == "peak_above_empty_bytes":
        return memory.peak_process_rss_bytes - memory.empty_process_rss_bytes
    if kind in type(memory).model_fields:
        value: int | None = getattr(memory, kind)
        return value
    if seen is None:
        return None
    if kind in ("vram_above_empty_bytes", "device_change_bytes"):
        return (
            seen.peak_vram_above_empty_bytes if kind == "vram_above_empty_bytes" else seen.device_change_bytes
        )
    field = "tree_pss_bytes" if "pss" in kind else "tree_rss_bytes"
    peak: int | None = getattr(seen.peak, field)
    if kind.startswith("peak_"):
        return peak
    empty: int | None = getattr(seen.empty, field) if seen.empty else None
    return None if peak is None or empty is None else peak - empty


def disk_bytes(variant: VariantRecords) -> int | None:
    """Bytes of all files of the checkpoint; None where neither making nor measuring it left them."""
    if variant.quantize and variant.quantize.disk_bytes is not None:
        return variant.quantize.disk_bytes
    return (
        variant.measure.memory.disk_bytes
        if variant.measure and variant.measure.memory and not variant.failure
        else None
    )
