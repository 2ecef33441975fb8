"""Bytes of a variant by kind, and what each kind saves. Kinds are never added up.

Disk is compared with the baseline's checkpoint, memory at run time with the 16-bit variant of the same engine.
"""

from __future__ import annotations

from typing import NamedTuple

from quantlab.records import MemoryRecord
from quantlab.reporting.load import BASELINE, ModelRecords, VariantRecords
from quantlab.reporting.rates import comparable, same_workload


class Bytes(NamedTuple):
    """Bytes and the share saved, each None with its reason."""

    bytes: int | None
    saving: float | None
    """1 - variant / 16-bit."""
    reason: str | None
    """Why the first of the two that is None is."""


KINDS = (
    "weights_bytes",
    "kv_cache_bytes",
    "peak_process_rss_bytes",
    "peak_above_empty_bytes",
    "peak_allocated_bytes",
    "peak_reserved_bytes",
    "process_vram_bytes",
)
"""Kinds of memory at run time, as the keys of the tables."""


def disk(records: ModelRecords, variant: VariantRecords) -> Bytes:
    """Bytes of the checkpoint's weight files."""
    ours = _disk_bytes(variant)
    if ours is None:
        return Bytes(None, None, variant.why_not("quantize"))
    baseline = records.variants.get(BASELINE)
    theirs = _disk_bytes(baseline) if baseline else None
    if not theirs:
        return Bytes(ours, None, f"the saving is not measured: there is no size of {BASELINE} to compare with")
    return Bytes(ours, 1 - ours / theirs, None)


def runtime(records: ModelRecords, variant: VariantRecords, kind: str) -> Bytes:
    """Bytes of one of KINDS at run time."""
    measured = variant.measure
    if measured is None or measured.failure or measured.memory is None:
        return Bytes(None, None, variant.why_not("measure"))
    ours = of_kind(measured.memory, kind)
    if ours is None:
        return Bytes(None, None, f"this device or engine has no {kind.removesuffix('_bytes').replace('_', ' ')}")
    base = comparable(records, variant)
    if base.record is None or base.record.memory is None:
        return Bytes(ours, None, base.reason or "not compared: the 16-bit variant has no memory measurement")
    if not same_workload(measured, base.record):
        return Bytes(ours, None, "not compared: the 16-bit variant ran another workload")
    theirs = of_kind(base.record.memory, kind)
    return Bytes(ours, 1 - ours / theirs, None) if theirs else Bytes(ours, None, "not compared: the 16-bit variant has none of this kind")


def peak_kind(records: ModelRecords) -> str:
    """The kind that stands for the peak in the summary: the driver's account where every measured variant has one, else the process's."""
    memories = [v.measure.memory for v in records.variants.values() if v.measure and v.measure.memory]
    on_device = bool(memories) and all(m.process_vram_bytes is not None for m in memories)
    return "process_vram_bytes" if on_device else "peak_process_rss_bytes"


def of_kind(memory: MemoryRecord, kind: str) -> int | None:
    """One kind of bytes out of a record."""
    if kind == "peak_above_empty_bytes":
        return memory.peak_process_rss_bytes - memory.empty_process_rss_bytes
    value: int | None = getattr(memory, kind)
    return value


def _disk_bytes(variant: VariantRecords) -> int | None:
    if variant.quantize and variant.quantize.disk_bytes is not None:
        return variant.quantize.disk_bytes
    return variant.measure.memory.disk_bytes if variant.measure and variant.measure.memory and not variant.failure else None
