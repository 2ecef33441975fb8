"""Warn if the device changed during the measurement: clocks, power limit, heat, throttling, other work on the
machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from quantlab.comparison.load import ModelRecords
from quantlab.numbers import listing
from quantlab.records.measured import Conditions

_MOVED_SHARE, _WARMER_CELSIUS = 0.05, 10
"""A clock that moves by less decides no ratio that anybody acts on; a chip that warms by more may lower its
clocks soon."""


class _Finding(NamedTuple):
    what: str
    who: str


def condition_warnings(records: ModelRecords) -> list[str]:
    """One sentence per kind, with the variants that were timed then."""
    variants_by_warning: dict[str, list[str]] = {}
    for variant in records.variants.values():
        speed = variant.measure.speed if variant.measure and not variant.measure.failure else None
        if speed and speed.before and speed.after:
            for what in _moved(speed.before, speed.after):
                variants_by_warning.setdefault(what.what, []).append(f"{variant.slug} ({what.who})")
    return [*(f"{what}: {listing(who)}." for what, who in variants_by_warning.items()), *_busy(records)]


def _moved(before: Conditions, after: Conditions) -> Iterable[_Finding]:
    if _changed(before.cpu_mhz, after.cpu_mhz):
        yield _Finding(
            "The processor's clock changed while these were timed",
            _from_to(before.cpu_mhz, after.cpu_mhz, "MHz"),
        )
    for one, other in zip(before.gpus, after.gpus, strict=False):
        for field, what, unit in (
            ("sm_clock_mhz", "The GPU's clock", "MHz"),
            ("memory_clock_mhz", "The clock of the GPU's memory", "MHz"),
            ("power_limit_watts", "The GPU's power limit", "W"),
        ):
            if _changed(getattr(one, field), getattr(other, field)):
                yield _Finding(
                    f"{what} changed while these were timed",
                    _from_to(getattr(one, field), getattr(other, field), unit),
                )
        if _warmer(one.temperature_celsius, other.temperature_celsius):
            yield _Finding(
                f"The GPU warmed by more than {_WARMER_CELSIUS} °C while these were timed",
                _from_to(one.temperature_celsius, other.temperature_celsius, "°C"),
            )
        reasons = _both(one.throttle_reasons, other.throttle_reasons)
        if reasons:
            yield _Finding("The GPU throttled its clocks", listing(reasons))


def _both(first: Sequence[str], second: Sequence[str]) -> list[str]:
    return list(dict.fromkeys((*first, *second)))


def _changed(before: float | None, after: float | None) -> bool:
    return bool(before and after) and abs((after or 0) - (before or 0)) > _MOVED_SHARE * max(
        before or 0, after or 0
    )


def _warmer(before: int | None, after: int | None) -> bool:
    return before is not None and after is not None and after - before > _WARMER_CELSIUS


def _from_to(before: float | None, after: float | None, unit: str) -> str:
    return f"{before:.0f} to {after:.0f} {unit}"


def _busy(records: ModelRecords) -> list[str]:
    """What the stage itself noted of other work on the machine: it knew how many processors it had."""
    noted: dict[str, None] = {}
    for variant in records.variants.values():
        for note in variant.notes("measure"):
            if note.startswith("The machine was busy"):
                noted[f"{variant.slug}: {note}"] = None
    return list(noted)
