"""Compute medians of the speed samples and their ratio to the 16-bit variant of the same engine on the same
device."""

from __future__ import annotations

from typing import Literal, NamedTuple

from quantlab import engines
from quantlab.analysis.medians import median
from quantlab.comparison.load import ModelRecords, VariantRecords, failure_text
from quantlab.records import MeasureRecord, SpeedPoint
from quantlab.records.measured import Median

Phase = Literal["decode", "prefill"]
Kind = Literal["paired", "sequential", "separate"]
NOT_THIS_POINT = "not compared: the 16-bit variant did not run this point"


class Comparable(NamedTuple):
    """The 16-bit variant's measurement that a variant's may be divided by, or the reason why there is
    none."""

    record: MeasureRecord | None
    reason: str | None


class Ratio(NamedTuple):
    """How many times the 16-bit variant's speed."""

    value: float | None
    low: float | None = None
    """Interval of the median; only paired repeats have one, because a drift between two runs is in no
    interval."""
    high: float | None = None
    kind: Kind | None = None
    """`paired`: repeats in turn. `sequential`: in one stage, one after the other. `separate`: from the two
    variants' own stages. None where it is the 16-bit variant itself."""
    reason: str | None = None
    """Why there is no value."""


def rate(point: SpeedPoint, phase: Phase) -> Median | None:
    """Tokens per second over the batch, from the raw samples, which the oldest records have too; None without
    any."""
    return median(point.decode_tokens_per_second if phase == "decode" else point.prefill_tokens_per_second)


def first_token(point: SpeedPoint) -> Median | None:
    """Seconds to the first token."""
    return median(point.prefill_seconds)


def per_token(point: SpeedPoint) -> Median | None:
    """Seconds per output token of one sequence."""
    return median([seconds / point.decode_tokens for seconds in point.decode_seconds])


def first_point(record: MeasureRecord | None) -> SpeedPoint | None:
    """The point that the summary shows: the smallest batch at the smallest context."""
    points = record.speed.points if record and record.speed else ()
    return min(points, key=lambda p: (p.batch, p.context_tokens), default=None)


def same_point(record: MeasureRecord, point: SpeedPoint) -> SpeedPoint | None:
    """The point of a record with the same batch, context and lengths."""
    workload = _workload(point)
    return next((p for p in (record.speed.points if record.speed else ()) if _workload(p) == workload), None)


def speed_ratio(records: ModelRecords, variant: VariantRecords, point: SpeedPoint, phase: Phase) -> Ratio:
    """The ratio that drifts least: paired repeats, else the same stage's, else the 16-bit variant's own
    measurement."""
    own_rate = rate(point, phase)
    if own_rate is None:
        return Ratio(
            None, reason=failure_text(point.failure) if point.failure else variant.why_not("measure")
        )
    paired: Median | None = getattr(point, f"{phase}_ratio")
    if paired:
        return Ratio(paired.value, paired.low, paired.high, "paired")
    beside: tuple[float, ...] = getattr(point, f"baseline_{phase}_seconds")
    baseline_seconds, own_seconds = median(beside), median(getattr(point, f"{phase}_seconds"))
    if baseline_seconds and own_seconds:
        return Ratio(baseline_seconds.value / own_seconds.value, kind="sequential")
    if point.baseline_failure:
        return Ratio(
            None,
            reason=(
                "not compared: the 16-bit variant did not run this point"
                f" ({failure_text(point.baseline_failure)})"
            ),
        )
    return _separate(records, variant, point, phase, own_rate)


def _separate(
    records: ModelRecords, variant: VariantRecords, point: SpeedPoint, phase: Phase, own_rate: Median
) -> Ratio:
    base = comparable(records, variant)
    if base.record is None:
        return Ratio(None, reason=base.reason)
    baseline_point = same_point(base.record, point)
    baseline_rate = rate(baseline_point, phase) if baseline_point else None
    itself = base.record is variant.measure
    return (
        Ratio(own_rate.value / baseline_rate.value, kind=None if itself else "separate")
        if baseline_rate
        else Ratio(None, reason=NOT_THIS_POINT)
    )


def comparable(records: ModelRecords, variant: VariantRecords) -> Comparable:
    """The 16-bit variant of the same engine, where it ran on the same device with as many threads."""
    measured = variant.measure
    if measured is None or measured.failure or (measured.speed is None and measured.memory is None):
        return Comparable(None, variant.why_not("measure"))
    slug = engines.sixteen_bit(measured.engine)
    if slug is None:
        return Comparable(None, f"no 16-bit variant is known for engine {measured.engine}")
    base = records.variants.get(slug)
    baseline = base.measure if base else None
    if base is None or baseline is None or baseline.failure or baseline.engine != measured.engine:
        reason = base.why_not("measure") if base else "it has no records"
        return Comparable(
            None, f"not compared: {slug}, the 16-bit variant of {measured.engine}, is not measured ({reason})"
        )
    if baseline.device != measured.device:
        return Comparable(None, f"not compared: {slug} ran on another device ({baseline.device})")
    if measured.speed and baseline.speed and measured.speed.threads != baseline.speed.threads:
        return Comparable(
            None,
            f"not compared: {slug} ran with {baseline.speed.threads} threads, this with"
            f" {measured.speed.threads}",
        )
    return Comparable(baseline, None)


def same_workload(a: MeasureRecord, b: MeasureRecord) -> bool:
    """Whether two measurements held the same workloads in memory, so that their peaks compare."""
    return _held(a) == _held(b)


def _held(record: MeasureRecord) -> set[tuple[int, int, int, int]]:
    """What did not fit has left no peak; what failed only when it was timed has."""
    points = record.speed.points if record.speed else ()
    return {_workload(p) for p in points if p.failure is None or p.kv_cache_bytes is not None}


def _workload(point: SpeedPoint) -> tuple[int, int, int, int]:
    return point.batch, point.context_tokens, point.prompt_tokens, point.decode_tokens
