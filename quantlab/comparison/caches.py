"""Compare variants that differ only in the type of the key-value cache: what the type saves and costs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from quantlab.architecture.cache_types import is_quantized
from quantlab.comparison.footprint import largest_cache
from quantlab.comparison.load import ModelRecords, VariantRecords
from quantlab.comparison.rates import rate, same_point
from quantlab.records import MeasureRecord, SpeedPoint

NO_USUAL = "no variant of the same method, width and settings has the usual cache"


class MeasuredCache(NamedTuple):
    """Bytes of the cache for each token, at the workload whose cache is largest."""

    measured: float | None
    formula: float | None
    reason: str | None
    """Why `measured` is None."""


class CacheComparison(NamedTuple):
    """A variant with a cache type of its own beside the same with the usual one."""

    variant: VariantRecords
    usual: VariantRecords | None
    """None where there is no such variant."""
    bytes: MeasuredCache
    usual_bytes: MeasuredCache
    decode_ratio: float | None
    """Of separate runs, at the deepest context that both ran: there the cache weighs most."""
    point: SpeedPoint | None
    """Where the ratio was taken."""
    no_ratio: str
    """Why there is no ratio."""


def compare_caches(records: ModelRecords) -> tuple[CacheComparison, ...]:
    """One for each variant with a cache type of its own; empty where none has one."""
    return tuple(
        _compare(records, variant) for variant in records.variants.values() if _has_type(records, variant)
    )


def counterpart(records: ModelRecords, variant: VariantRecords) -> VariantRecords | None:
    """The variant of the same method, width and settings with the usual cache."""
    own = {key: value for key, value in _settings(records, variant).items() if key != "cache"}
    for other in records.variants.values():
        same = other.variant[:2] == variant.variant[:2] and not other.variant.external
        if same and not _has_type(records, other) and _settings(records, other) == own:
            return other
    return None


def _settings(records: ModelRecords, variant: VariantRecords) -> dict[str, Any]:
    return dict(records.recipe.variants.get(variant.slug, {}))


def _has_type(records: ModelRecords, variant: VariantRecords) -> bool:
    memory = variant.measure.memory if variant.measure else None
    return "cache" in _settings(records, variant) or bool(memory and is_quantized(memory.cache_dtype))


def _compare(records: ModelRecords, variant: VariantRecords) -> CacheComparison:
    usual, why = counterpart(records, variant), variant.why_not("measure")
    measured, usual_measured = (_whole(each) for each in (variant, usual))
    points = _deepest_first(measured)
    ratio, point = _ratio(points, measured, usual_measured)
    if usual_measured is None:
        no_ratio = usual.why_not("measure") if usual else NO_USUAL
    else:
        no_ratio = why if not points else "no common workload on one device"
    own_bytes, usual_bytes = _bytes(variant, why), _bytes(usual, why)
    return CacheComparison(variant, usual, own_bytes, usual_bytes, ratio, point, no_ratio)


def _bytes(variant: VariantRecords | None, why: str) -> MeasuredCache:
    point = largest_cache(variant.measure) if variant and variant.measure else None
    if point is None:
        return MeasuredCache(None, None, why)
    tokens = point.batch * (point.context_tokens + point.prompt_tokens + point.decode_tokens)
    measured, formula = point.kv_cache_bytes, point.kv_cache_formula_bytes
    return MeasuredCache(
        measured / tokens if measured is not None else None,
        formula / tokens if formula is not None else None,
        "the record does not say how large its cache was",
    )


def _whole(variant: VariantRecords | None) -> MeasureRecord | None:
    """The measurement, where it did not fail."""
    measured = variant.measure if variant else None
    return measured if measured and not measured.failure else None


def _deepest_first(measured: MeasureRecord | None) -> list[SpeedPoint]:
    points: Iterable[SpeedPoint] = measured.speed.points if measured and measured.speed else ()
    return sorted(points, key=lambda point: (point.context_tokens, point.batch), reverse=True)


def _ratio(
    points: list[SpeedPoint], measured: MeasureRecord | None, usual: MeasureRecord | None
) -> tuple[float | None, SpeedPoint | None]:
    if measured is None or usual is None or measured.device != usual.device:
        return None, None
    for point in points:
        other = same_point(usual, point)
        own_rate, usual_rate = rate(point, "decode"), rate(other, "decode") if other else None
        if own_rate and usual_rate:
            return own_rate.value / usual_rate.value, point
    return None, None
