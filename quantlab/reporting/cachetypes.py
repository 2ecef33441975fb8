"""Tabulate variants that differ only in the type of the key-value cache."""

from __future__ import annotations

from quantlab.comparison.caches import NO_USUAL, CacheComparison, MeasuredCache
from quantlab.comparison.compare import Comparison
from quantlab.comparison.load import VariantRecords
from quantlab.numbers import divergence, fixed, ratio, significant
from quantlab.reporting.places import device_of
from quantlab.reporting.table import Column, Row, Table


def cache_table(*devices: Comparison) -> Table:
    """One row per variant with a cache type of its own; empty where none has one."""
    rows = [_row(comparison, each) for comparison in devices for each in comparison.caches]
    return Table("caches", tuple(rows), _COLUMNS)


def _row(comparison: Comparison, compared: CacheComparison) -> Row:
    variant, usual = compared.variant, compared.usual
    device = device_of(comparison.records, variant)
    row = Row({"variant": variant.slug, "device": device}, notes=variant.notes("measure"))
    row.put("usual_cache_variant", usual.slug if usual else None, NO_USUAL)
    memory = variant.measure.memory if variant.measure else None
    row.put("cache_dtype", memory.cache_dtype if memory else None, variant.why_not("measure"))
    _put_bytes(row, "", compared.bytes)
    _put_bytes(row, "usual_", compared.usual_bytes)
    row.put("decode_ratio", compared.decode_ratio, compared.no_ratio)
    row.put("batch", compared.point.batch if compared.point else None)
    row.put("context_tokens", compared.point.context_tokens if compared.point else None)
    _put_divergence(row, "", variant)
    _put_divergence(row, "usual_", usual)
    row.fail(comparison.variants[variant.slug].status.failed)
    return row


def _put_bytes(row: Row, key: str, cache: MeasuredCache) -> None:
    row.put(f"{key}cache_bytes_per_token", cache.measured, cache.reason)
    row.put(f"{key}cache_formula_bytes_per_token", cache.formula)


def _put_divergence(row: Row, key: str, variant: VariantRecords | None) -> None:
    nats = variant.divergence.kl_divergence_nats if variant and variant.divergence else None
    row.put(
        f"{key}kl_divergence_nats",
        nats.value if nats else None,
        variant.why_not("diverge") if variant else NO_USUAL,
    )
    row.put(f"{key}kl_divergence_standard_error", nats.standard_error if nats else None)


def _per_token(value: float, formula: float | None, usual: float | None) -> str:
    said = [f"formula {fixed(formula, 0)}"] if formula is not None else []
    said += [f"usual {fixed(usual, 0)}"] if usual is not None else []
    return fixed(value, 0) + (f" ({', '.join(said)})" if said else "")


def _speed(value: float, batch: int | None, context: int | None) -> str:
    return ratio(value) + (
        f" (batch {batch:,}, context {context:,})" if batch is not None and context is not None else ""
    )


def _closeness(value: float, error: float | None, usual: float | None, usual_error: float | None) -> str:
    if usual is None:
        return divergence(value, error)
    change = value - usual
    return (
        f"{divergence(value, error)} (usual {divergence(usual, usual_error)};"
        f" {'+' if change >= 0 else '−'}{significant(abs(change))})"
    )


_COLUMNS = (
    Column("variant", ("variant",), str),
    Column("the same with the usual cache", ("usual_cache_variant",), str),
    Column("cache", ("cache_dtype",), str),
    Column(
        "cache (bytes/token)",
        ("cache_bytes_per_token", "cache_formula_bytes_per_token", "usual_cache_bytes_per_token"),
        _per_token,
    ),
    Column(
        "decode against the usual cache (separate runs)", ("decode_ratio", "batch", "context_tokens"), _speed
    ),
    Column(
        "KL divergence (nats/token)",
        (
            "kl_divergence_nats",
            "kl_divergence_standard_error",
            "usual_kl_divergence_nats",
            "usual_kl_divergence_standard_error",
        ),
        _closeness,
    ),
)
