"""Medians of the speed samples and their ratio to the 16-bit variant of the same engine on the same device."""

from __future__ import annotations

from statistics import median
from typing import NamedTuple

from quantlab.records import MeasureRecord, SpeedPoint
from quantlab.reporting.load import SIXTEEN_BIT, ModelRecords, VariantRecords


class Rate(NamedTuple):
    """Tokens per second: the median of the repeats and their whole spread."""

    median: float
    low: float
    high: float
    repeats: int


class Comparable(NamedTuple):
    """The 16-bit variant's measurement that a variant's may be divided by, or the reason why there is none."""

    record: MeasureRecord | None
    reason: str | None


def rate(samples: tuple[float, ...]) -> Rate | None:
    """The median and spread of raw samples; None without any."""
    return Rate(median(samples), min(samples), max(samples), len(samples)) if samples else None


def first_point(record: MeasureRecord | None) -> SpeedPoint | None:
    """The point that the summary shows: the smallest batch at the smallest context."""
    points = record.speed.points if record and record.speed else ()
    return min(points, key=lambda p: (p.batch, p.context_tokens), default=None)


def same_point(record: MeasureRecord, point: SpeedPoint) -> SpeedPoint | None:
    """The point of a record with the same batch, context and lengths."""
    workload = _workload(point)
    return next((p for p in (record.speed.points if record.speed else ()) if _workload(p) == workload), None)


def comparable(records: ModelRecords, variant: VariantRecords) -> Comparable:
    """The 16-bit variant of the same engine, where it ran on the same device with as many threads."""
    ours = variant.measure
    if ours is None or ours.failure or (ours.speed is None and ours.memory is None):
        return Comparable(None, variant.why_not("measure"))
    slug = SIXTEEN_BIT.get(ours.engine or "")
    if slug is None:
        return Comparable(None, f"no 16-bit variant is known for engine {ours.engine}")
    base = records.variants.get(slug)
    theirs = base.measure if base else None
    if base is None or theirs is None or theirs.failure or theirs.engine != ours.engine:
        reason = base.why_not("measure") if base else "it has no records"
        return Comparable(None, f"not compared: {slug}, the 16-bit variant of {ours.engine}, is not measured ({reason})")
    if theirs.device != ours.device:
        return Comparable(None, f"not compared: {slug} ran on another device ({theirs.device})")
    if ours.speed and theirs.speed and ours.speed.threads != theirs.speed.threads:
        return Comparable(None, f"not compared: {slug} ran with {theirs.speed.threads} threads, this with {ours.speed.threads}")
    return Comparable(theirs, None)


def same_workload(a: MeasureRecord, b: MeasureRecord) -> bool:
    """Whether two measurements ran the same points, so that their peaks of memory compare."""
    return {_workload(p) for p in (a.speed.points if a.speed else ())} == {_workload(p) for p in (b.speed.points if b.speed else ())}


def _workload(point: SpeedPoint) -> tuple[int, int, int, int]:
    return point.batch, point.context_tokens, point.prompt_tokens, point.decode_tokens
