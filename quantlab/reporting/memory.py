"""Tabulate memory and savings: every kind of bytes in its own column. Kinds are never added up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from quantlab.comparison import footprint
from quantlab.comparison.compare import Comparison, VariantComparison
from quantlab.comparison.load import VariantRecords
from quantlab.numbers import ByteUnit, beside, fixed, percent, unit_for
from quantlab.records import MeasureRecord
from quantlab.reporting.places import device_of
from quantlab.reporting.table import Column, Row, Table

_HEADERS = {
    "weights_bytes": "weights resident",
    "state_bytes": "recurrent state",
    "peak_allocated_bytes": "peak allocated (CUDA)",
    "peak_reserved_bytes": "peak reserved (CUDA)",
    "process_vram_bytes": "peak of the process tree on the GPU (driver)",
    "vram_above_empty_bytes": "the same above an empty engine process",
    "device_change_bytes": "change of the whole GPU",
    "peak_tree_pss_bytes": "peak of the process tree (PSS, the machine's memory)",
    "tree_pss_above_empty_bytes": "PSS above an empty engine process",
    "peak_tree_rss_bytes": "peak of the process tree (RSS, the machine's memory)",
    "tree_rss_above_empty_bytes": "RSS above an empty engine process",
    "peak_process_rss_bytes": "peak of the process (VmHWM)",
    "peak_above_empty_bytes": "VmHWM above an empty process",
}
_PSS = ("peak_tree_pss_bytes", "tree_pss_above_empty_bytes")
_RSS = ("peak_tree_rss_bytes", "tree_rss_above_empty_bytes")
_HIGH_WATER = ("peak_process_rss_bytes", "peak_above_empty_bytes")


def memory_table(*devices: Comparison) -> Table:
    """One row per variant and device; a device's records are compared among themselves alone."""
    variants = [(comparison, variant) for comparison in devices for variant in comparison.variants.values()]
    places = sorted({place for _, variant in variants for place in _weights_by_place(variant.records)})
    rows = tuple(_row(comparison, variant, places) for comparison, variant in variants)
    return Table("memory", rows, memory_columns(rows))


def _row(comparison: Comparison, variant: VariantComparison, places: Sequence[str]) -> Row:
    measured, why = variant.records.measure, variant.records.why_not("measure")
    row = Row(
        {"variant": variant.slug, "device": device_of(comparison.records, variant.records)},
        notes=(*variant.records.notes("measure"), *_died(variant.records)),
    )
    row.put("engine", measured.engine if measured else None, why)
    row.put("disk_bytes", variant.disk.bytes, variant.disk.reason)
    row.put("disk_saving", variant.disk.share, variant.disk.reason)
    for kind, saving in variant.memory.items():
        row.put(kind, saving.bytes, saving.reason)
        row.put(kind.replace("_bytes", "_saving"), saving.share, saving.reason)
    _put_cache(row, measured)
    by_place = _weights_by_place(variant.records)
    for place in places:
        row.put(
            f"weights_on_{place}_bytes",
            by_place.get(place, 0) if by_place else None,
            "the model lies on one device",
        )
    memory = measured.memory if measured else None
    row.put("empty_process_rss_bytes", memory.empty_process_rss_bytes if memory else None, why)
    row.put("loaded_process_rss_bytes", memory.loaded_process_rss_bytes if memory else None, why)
    _put_sampling(row, measured, why)
    row.fail(variant.status.failed)
    return row


def _put_cache(row: Row, measured: MeasureRecord | None) -> None:
    point = footprint.largest_cache(measured) if measured else None
    older = "the record does not say at which workload"
    row.put("kv_cache_formula_bytes", point.kv_cache_formula_bytes if point else None)
    row.put(
        "kv_cache_batch",
        point.batch if point else None,
        older if row.values["kv_cache_bytes"] is not None else None,
    )
    tokens = point.context_tokens + point.prompt_tokens + point.decode_tokens if point else None
    row.put("kv_cache_tokens", tokens)
    row.put(
        "cache_dtype",
        measured.memory.cache_dtype if measured and measured.memory else None,
        "not in the record",
    )


def _put_sampling(row: Row, measured: MeasureRecord | None, why: str) -> None:
    seen = measured.sampled if measured else None
    row.put(
        "sampling_interval_seconds",
        seen.interval_seconds if seen else None,
        why if measured is None else "nothing was sampled",
    )
    row.put("pss_interval_seconds", seen.pss_interval_seconds if seen else None)
    row.put("samples", seen.samples if seen else None)
    row.put("died_in", measured.died_in if measured else None)
    died = seen if measured and measured.died_in and _is_last(measured) else None
    row.put("last_tree_pss_bytes", died.last.tree_pss_bytes if died else None)
    row.put("last_tree_rss_bytes", died.last.tree_rss_bytes if died else None)
    on_gpus = [gpu.tree_bytes for gpu in died.last.gpus if gpu.tree_bytes is not None] if died else []
    row.put("last_vram_bytes", sum(on_gpus) if on_gpus else None)


def _is_last(measured: MeasureRecord) -> bool:
    """Whether the last sample is of the process that died: after a workload's death another one runs the
    rest."""
    return measured.failure is not None or (
        measured.sampled is not None and measured.sampled.last.step == measured.died_in
    )


def _died(variant: VariantRecords) -> tuple[str, ...]:
    """Of a process that died: the step and its last sample, unless the failure's reason says it already."""
    measured = variant.measure
    if measured is None or measured.died_in is None:
        return ()
    last = f"; {measured.sampled.last_words}" if measured.sampled and _is_last(measured) else ""
    said = (
        measured.failure is not None
        and measured.sampled is not None
        and measured.sampled.last_words in measured.failure.reason
    )
    return () if said else (f"The process died in step `{measured.died_in}`{last}",)


def _weights_by_place(variant: VariantRecords) -> dict[str, int]:
    """By place, where the model lies on more than one."""
    bytes_by_place = (
        variant.measure.memory.weights_by_device_bytes if variant.measure and variant.measure.memory else {}
    )
    return bytes_by_place if len(bytes_by_place) > 1 else {}


def memory_columns(rows: Sequence[Row]) -> tuple[Column, ...]:
    """Only kinds that a row has. The kernel's high-water mark stands where nothing was sampled; PSS where the
    system has it, else RSS."""
    unit = unit_for(
        value
        for row in rows
        for key, value in row.values.items()
        if key.endswith("_bytes") and isinstance(value, int)
    )
    kinds = [kind for kind in footprint.KINDS if kind != "kv_cache_bytes" and _shown(rows, kind)]
    saved = partial(beside, unit.text, percent)
    runtime = [
        Column(f"{_HEADERS[k]} ({unit.name}, saved)", (k, k.replace("_bytes", "_saving")), saved)
        for k in kinds
    ]
    head = sum(kind in ("weights_bytes", "state_bytes") for kind in kinds)
    on = dict.fromkeys(
        key
        for row in rows
        for key in row.values
        if key.startswith("weights_on_") and row.values[key] is not None
    )
    cache_keys = (
        "kv_cache_bytes",
        "kv_cache_saving",
        "kv_cache_formula_bytes",
        "kv_cache_batch",
        "kv_cache_tokens",
    )
    return (
        Column("variant", ("variant",), str),
        Column("engine", ("engine",), str),
        Column(f"disk ({unit.name}, saved)", ("disk_bytes", "disk_saving"), saved),
        *runtime[:1],
        *(Column(f"weights on {key[11:-6]} ({unit.name})", (key,), unit.text) for key in on),
        Column(f"KV cache ({unit.name}, saved; formula, workload)", cache_keys, _cache_text(unit)),
        *runtime[1:head],
        *runtime[head:],
        *_sampling(rows),
    )


def _shown(rows: Sequence[Row], kind: str) -> bool:
    there = [row for row in rows if row.values[kind] is not None]
    if kind == "weights_bytes":
        return True
    if kind == "state_bytes":
        return any(row.values[kind] for row in there)
    if kind in _RSS:
        return bool(there) and not any(row.values["peak_tree_pss_bytes"] is not None for row in rows)
    if kind in _HIGH_WATER:
        return not any(row.values[k] is not None for row in rows for k in (*_PSS, *_RSS)) or any(
            row.values["peak_tree_rss_bytes"] is None for row in there
        )
    return bool(there)


def _cache_text(unit: ByteUnit) -> Callable[..., str]:
    def text(
        value: float, saving: float | None, formula: float | None, batch: int | None, tokens: int | None
    ) -> str:
        parts = [f"formula {unit.text(formula)}"] if formula is not None else []
        parts += [f"batch {batch:,} × {tokens:,} tokens"] if batch is not None and tokens is not None else []
        return beside(unit.text, percent, value, saving) + (f"; {', '.join(parts)}" if parts else "")

    return text


def _sampling(rows: Sequence[Row]) -> list[Column]:
    keys = ("sampling_interval_seconds", "pss_interval_seconds")
    return (
        [Column("looked at every (ms)", keys, _interval)]
        if any(row.values[keys[0]] is not None for row in rows)
        else []
    )


def _interval(seconds: float, pss: float | None) -> str:
    return fixed(1000 * seconds, 1) + (f"; PSS {fixed(1000 * pss, 1)}" if pss is not None else "")
