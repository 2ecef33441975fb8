"""The memory-savings table: every kind of bytes in its own column with what it saves. Kinds are never added up."""

from __future__ import annotations

from functools import partial

from quantlab.reporting import footprint
from quantlab.reporting.load import ModelRecords, VariantRecords
from quantlab.reporting.numbers import ByteUnit, beside, percent, unit_for
from quantlab.reporting.status import status_of
from quantlab.reporting.table import Column, Row, Table

_HEADERS = {
    "weights_bytes": "weights resident",
    "kv_cache_bytes": "KV cache",
    "peak_process_rss_bytes": "peak of the process",
    "peak_above_empty_bytes": "peak above an empty process",
    "peak_allocated_bytes": "peak allocated (CUDA)",
    "peak_reserved_bytes": "peak reserved (CUDA)",
    "process_vram_bytes": "process on the device (NVML)",
}
_CUDA = ("peak_allocated_bytes", "peak_reserved_bytes", "process_vram_bytes")


def memory_table(records: ModelRecords) -> Table:
    """One row per variant; the CUDA kinds only where a variant has one."""
    memories = [v.measure.memory for v in records.variants.values() if v.measure and v.measure.memory]
    kinds = [k for k in footprint.KINDS if k not in _CUDA or any(footprint.of_kind(m, k) is not None for m in memories)]
    rows = tuple(_row(records, variant, kinds) for variant in records.variants.values())
    unit = unit_for(value for row in rows for key, value in row.values.items() if key.endswith("_bytes") and isinstance(value, int))
    return Table("memory", rows, _columns(kinds, unit))


def _row(records: ModelRecords, variant: VariantRecords, kinds: list[str]) -> Row:
    row = Row({"variant": variant.slug}, notes=variant.notes("measure"))
    row.put("engine", variant.measure.engine if variant.measure else None, variant.why_not("measure"))
    size = footprint.disk(records, variant)
    row.put("disk_bytes", size.bytes, size.reason)
    row.put("disk_saving", size.saving, size.reason)
    for kind in kinds:
        found = footprint.runtime(records, variant, kind)
        row.put(kind, found.bytes, found.reason)
        row.put(kind.replace("_bytes", "_saving"), found.saving, found.reason)
    memory = variant.measure.memory if variant.measure else None
    row.put("empty_process_rss_bytes", memory.empty_process_rss_bytes if memory else None, variant.why_not("measure"))
    row.put("loaded_process_rss_bytes", memory.loaded_process_rss_bytes if memory else None, variant.why_not("measure"))
    row.fail(status_of(variant).failed)
    return row


def _columns(kinds: list[str], unit: ByteUnit) -> tuple[Column, ...]:
    text = partial(beside, unit.text, percent)
    runtime = [
        Column(f"{_HEADERS[k]} ({unit.name}, saved)", (k, k.replace("_bytes", "_saving")), text) for k in kinds if k != "kv_cache_bytes"
    ]
    cache = [Column(f"KV cache ({unit.name})", ("kv_cache_bytes",), unit.text)]
    disk = Column(f"disk ({unit.name}, saved)", ("disk_bytes", "disk_saving"), text)
    return (Column("variant", ("variant",), str), Column("engine", ("engine",), str), disk, *runtime[:1], *cache, *runtime[1:])
