"""Compare a variant's speed at each point (batch, context) with the 16-bit variant of the same engine."""

from __future__ import annotations

from typing import NamedTuple

from quantlab.comparison.load import ModelRecords, VariantRecords
from quantlab.comparison.rates import Phase, Ratio, first_point, rate, speed_ratio
from quantlab.records import SpeedPoint
from quantlab.records.measured import Median


class PhaseSpeed(NamedTuple):
    """Tokens per second of one phase and what they are of the 16-bit variant's."""

    rate: Median | None
    ratio: Ratio


class PointSpeed(NamedTuple):
    """Both phases at one point."""

    point: SpeedPoint
    decode: PhaseSpeed
    prefill: PhaseSpeed

    def of(self, phase: Phase) -> PhaseSpeed:
        """The speed of a phase."""
        return self.decode if phase == "decode" else self.prefill


def compare_speeds(records: ModelRecords, variant: VariantRecords) -> tuple[PointSpeed, ...]:
    """Every point of a variant's record, in the record's order."""
    speed = variant.measure.speed if variant.measure else None
    return tuple(_point(records, variant, point) for point in (speed.points if speed else ()))


def first_speed(variant: VariantRecords, speeds: tuple[PointSpeed, ...]) -> PointSpeed | None:
    """At the point that the summary shows: the smallest batch at the smallest context."""
    first = first_point(variant.measure)
    return next((speed for speed in speeds if speed.point is first), None)


def _point(records: ModelRecords, variant: VariantRecords, point: SpeedPoint) -> PointSpeed:
    def speed(phase: Phase) -> PhaseSpeed:
        return PhaseSpeed(rate(point, phase), speed_ratio(records, variant, point, phase))

    return PointSpeed(point, speed("decode"), speed("prefill"))
