"""Variants that differ from another in the key-value cache's type alone: what the type saves, and what it costs."""

from __future__ import annotations

from typing import Any

from quantlab.architecture.cache_types import is_quantized
from quantlab.comparison.footprint import largest_cache
from quantlab.comparison.load import ModelRecords, VariantRecords
from quantlab.comparison.rates import rate, same_point
from quantlab.comparison.status import status_of
from quantlab.numbers import divergence, fixed, ratio, significant
from quantlab.records import Estimate, SpeedPoint
from quantlab.reporting.places import device_of
from quantlab.reporting.table import Column, Row, Table


def cache_table(*devices: ModelRecords) -> Table:
    """One row per variant with a cache type of its own; empty where none has one."""
    rows = [_row(records, variant) for records in devices for variant in records.variants.values() if _has_type(records, variant)]
    return Table("caches", tuple(rows), _COLUMNS)


def _settings(records: ModelRecords, variant: VariantRecords) -> dict[str, Any]:
    return dict(records.recipe.variants.get(variant.slug, {}))


def _has_type(records: ModelRecords, variant: VariantRecords) -> bool:
    memory = variant.measure.memory if variant.measure else None
    return "cache" in _settings(records, variant) or bool(memory and is_quantized(memory.cache_dtype))


def counterpart(records: ModelRecords, variant: VariantRecords) -> VariantRecords | None:
    """The variant of the same method, width and settings with the usual cache."""
    ours = {key: value for key, value in _settings(records, variant).items() if key != "cache"}
    for other in records.variants.values():
        same = other.variant[:2] == variant.variant[:2] and not other.variant.external
        if same and not _has_type(records, other) and _settings(records, other) == ours:
            return other
    return None


def _row(records: ModelRecords, variant: VariantRecords) -> Row:
    usual, why = counterpart(records, variant), variant.why_not("measure")
    row = Row({"variant": variant.slug, "device": device_of(records, variant)}, notes=variant.notes("measure"))
    lone = "no variant of the same method, width and settings has the usual cache"
    row.put("usual_cache_variant", usual.slug if usual else None, lone)
    memory = variant.measure.memory if variant.measure else None
    row.put("cache_dtype", memory.cache_dtype if memory else None, why)
    _put_bytes(row, variant, usual, why)
    _put_speed(row, variant, usual, usual.why_not("measure") if usual else lone, why)
    for key, record in (("", variant), ("usual_", usual)):
        kl = _divergence(record)
        reason = record.why_not("diverge") if record else lone
        row.put(f"{key}kl_divergence_nats", kl.value if kl else None, reason)
        row.put(f"{key}kl_divergence_standard_error", kl.standard_error if kl else None)
    row.fail(status_of(variant).failed)
    return row


def _put_bytes(row: Row, variant: VariantRecords, usual: VariantRecords | None, why: str) -> None:
    older = "the record says at no workload how large its cache was"
    for key, record in (("", variant), ("usual_", usual)):
        point = largest_cache(record.measure) if record and record.measure else None
        tokens = _tokens(point) if point else 0
        measured, formula = (point.kv_cache_bytes, point.kv_cache_formula_bytes) if point else (None, None)
        row.put(f"{key}cache_bytes_per_token", measured / tokens if measured is not None else None, why if point is None else older)
        row.put(f"{key}cache_formula_bytes_per_token", formula / tokens if formula is not None else None)


def _tokens(point: SpeedPoint) -> int:
    return point.batch * (point.context_tokens + point.prompt_tokens + point.decode_tokens)


def _put_speed(row: Row, variant: VariantRecords, usual: VariantRecords | None, lacking: str, why: str) -> None:
    """At the deepest context that both ran: there the cache weighs most."""
    ours, theirs = (v.measure if v and not (v.measure and v.measure.failure) else None for v in (variant, usual))
    points = sorted(ours.speed.points, key=lambda p: (p.context_tokens, p.batch), reverse=True) if ours and ours.speed else []
    same_place = ours is not None and theirs is not None and ours.device == theirs.device
    for point in points if same_place and theirs else []:
        other = same_point(theirs, point) if theirs else None
        a, b = rate(point, "decode"), rate(other, "decode") if other else None
        if a and b:
            row.put("decode_ratio", a.value / b.value)
            row.put("batch", point.batch)
            row.put("context_tokens", point.context_tokens)
            return
    row.put("decode_ratio", None, lacking if theirs is None else why if not points else "they ran no workload in common on one device")
    row.put("batch", None)
    row.put("context_tokens", None)


def _divergence(variant: VariantRecords | None) -> Estimate | None:
    return variant.divergence.kl_divergence_nats if variant and variant.divergence else None


def _per_token(value: float, formula: float | None, usual: float | None) -> str:
    said = [f"formula {fixed(formula, 0)}"] if formula is not None else []
    said += [f"usual {fixed(usual, 0)}"] if usual is not None else []
    return fixed(value, 0) + (f" ({', '.join(said)})" if said else "")


def _speed(value: float, batch: int | None, context: int | None) -> str:
    return ratio(value) + (f" (batch {batch:,}, context {context:,})" if batch is not None and context is not None else "")


def _closeness(value: float, error: float | None, usual: float | None, usual_error: float | None) -> str:
    if usual is None:
        return divergence(value, error)
    change = value - usual
    return f"{divergence(value, error)} (usual {divergence(usual, usual_error)}; {'+' if change >= 0 else '−'}{significant(abs(change))})"


_COLUMNS = (
    Column("variant", ("variant",), str),
    Column("the same with the usual cache", ("usual_cache_variant",), str),
    Column("cache", ("cache_dtype",), str),
    Column("cache (bytes/token)", ("cache_bytes_per_token", "cache_formula_bytes_per_token", "usual_cache_bytes_per_token"), _per_token),
    Column("decode against the usual cache (separate runs)", ("decode_ratio", "batch", "context_tokens"), _speed),
    Column(
        "KL divergence (nats/token)",
        ("kl_divergence_nats", "kl_divergence_standard_error", "usual_kl_divergence_nats", "usual_kl_divergence_standard_error"),
        _closeness,
    ),
)
