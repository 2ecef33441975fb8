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
    ours = rate(point, phase)
    if ours is None:
        return Ratio(
            None, reason=failure_text(point.failure) if point.failure else variant.why_not("measure")
        )
    paired: Median | None = getattr(point, f"{phase}_ratio")
    if paired:
        return Ratio(paired.value, paired.low, paired.high, "paired")
    beside: tuple[float, ...] = getattr(point, f"baseline_{phase}_seconds")
    theirs, own = median(beside), median(getattr(point, f"{phase}_seconds"))
    if theirs and own:
        return Ratio(theirs.value / own.value, kind="sequential")
    if point.baseline_failure:
        return Ratio(
            None,
            reason=(
                "not compared: the 16-bit variant did not run this point"
                f" ({failure_text(point.baseline_failure)})"
            ),
        )
    return _separate(records, variant, point, phase, ours)


def _separate(
    records: ModelRecords, variant: VariantRecords, point: SpeedPoint, phase: Phase, ours: Median
) -> Ratio:
    base = comparable(records, variant)
    if base.record is None:
        return Ratio(None, reason=base.reason)
    found = same_point(base.record, point)
    theirs = rate(found, phase) if found else None
    itself = base.record is variant.measure
    return (
        Ratio(ours.value / theirs.value, kind=None if itself else "separate")
        if theirs
        else Ratio(None, reason=NOT_THIS_POINT)
    )


def comparable(records: ModelRecords, variant: VariantRecords) -> Comparable:
    """The 16-bit variant of the same engine, where it ran on the same device with as many threads."""
    ours = variant.measure
    if ours is None or ours.failure or (ours.speed is None and ours.memory is None):
        return Comparable(None, variant.why_not("measure"))
    slug = engines.sixteen_bit(ours.engine)
    if slug is None:
        return Comparable(None, f"no 16-bit variant is known for engine {ours.engine}")
    base = records.variants.get(slug)
    theirs = base.measure if base else None
    if base is None or theirs is None or theirs.failure or theirs.engine != ours.engine:
        reason = base.why_not("measure") if base else "it has no records"
        return Comparable(
            None, f"not compared: {slug}, the 16-bit variant of {ours.engine}, is not measured ({reason})"
        )
    if theirs.device != ours.device:
        return Comparable(None, f"not compared: {slug} ran on another device ({theirs.device})")
    if ours.speed and theirs.speed and ours.speed.threads != theirs.speed.threads:
        return Comparable(
            None,
            f"not compared: {slug} ran with {theirs.speed.threads} threads, this with {ours.speed.threads}",
        )
    return Comparable(theirs, None)


def same_workload(a: MeasureRecord, b: MeasureRecord) -> bool:
    """Whether two measurements held the same workloads in memory, so that their peaks compare."""
    return _held(a) == _held(b)


def _held(record: MeasureRecord) -> set[tuple[int, int, int, int]]:
    """What did not fit has left no peak; what failed only when it was timed has."""
    points = record.speed.points if record.speed else ()
    return {_workload(p) for p in points if p.failure is None or p.kv_cache_bytes is not None}


def _workload(point: SpeedPoint) -> tuple[int, int, int, int]:
    return point.batch, point.context_tokens, point.prompt_tokens, point.decode_tokens
