"""Time every workload repeatedly, alternating the variant and the 16-bit variant of its engine.

Both processes hold their model at the same time and run one repeat each in turn: V B V B ... A machine that
slows down or warms up then slows both, and each ratio is of two repeats measured within the same seconds."""

from __future__ import annotations

import time
from typing import NamedTuple

from quantlab.errors import CellFailure
from quantlab.hardware.energy import Meter
from quantlab.measuring.worker_client import GridPoint, Worker, WorkerDied
from quantlab.progress import Step
from quantlab.records import Failure

_PAUSE_SECONDS = 0.02
"""Threads of the other process spin for some milliseconds after their last work, unless it is stopped while
it waits."""
LEAST_SECONDS = 1.0
"""Energy counters move in steps of 20 to 100 ms: below it, the steps are more than a few percent of what is
read."""


class Timing(NamedTuple):
    """One repeat."""

    prefill_seconds: float
    decode_seconds: float
    prefill_joules: float | None
    decode_joules: float | None


class Timings(NamedTuple):
    """All repeats of one workload by one process, in the order taken, and why they ended early."""

    work: GridPoint
    repeats: tuple[Timing, ...] = ()
    failure: Failure | None = None
    died_in: str | None = None

    def joules_per_token(self, decode: bool) -> float | None:
        """Over all repeats; None without a counter, and where its steps would be a part of the result."""
        used = [t.decode_joules if decode else t.prefill_joules for t in self.repeats]
        known = [joules for joules in used if joules is not None]
        if self.seconds(decode) < LEAST_SECONDS:
            return None
        tokens = self.work.batch * (self.work.decode if decode else self.work.length) * len(used)
        return sum(known) / tokens if known and len(known) == len(used) else None

    def seconds(self, decode: bool) -> float:
        """Of all repeats together."""
        return sum(t.decode_seconds if decode else t.prefill_seconds for t in self.repeats)


class _Failed(NamedTuple):
    failure: Failure | None = None
    died_in: str | None = None


_NO_FAILURE = _Failed()


class Turns(NamedTuple):
    """One workload's repeats, the variant's and the 16-bit variant's."""

    variant: Timings
    baseline: Timings | None = None


def alternate(
    worker: Worker, baseline: Worker | None, work: GridPoint, repeats: int, meter: Meter, step: Step
) -> Turns:
    """Warm both up where their last run was another workload, then take turns. What fails of the 16-bit
    variant stops it alone.

    Repeats that were taken before a failure stay.
    """
    timings: list[Timing] = []
    baseline_timings: list[Timing] = []
    failed = baseline_failed = _NO_FAILURE
    try:
        worker.warm_up(work)
    except CellFailure as error:
        return Turns(Timings(work, (), *_what_failed(worker, work, error)))
    if baseline is not None:
        try:
            baseline.warm_up(work)
        except CellFailure as error:
            baseline_failed = _what_failed(baseline, work, error)
    for _ in range(repeats):
        try:
            timings.append(timed(worker, work, meter))
        except CellFailure as error:
            failed = _what_failed(worker, work, error)
            break
        if baseline is not None and baseline_failed.failure is None:
            try:
                baseline_timings.append(timed(baseline, work, meter))
            except CellFailure as error:
                baseline_failed = _what_failed(baseline, work, error)
        step.advance()
    return Turns(
        Timings(work, tuple(timings), *failed),
        Timings(work, tuple(baseline_timings), *baseline_failed)
        if baseline is not None and timings
        else None,
    )


def _what_failed(worker: Worker, work: GridPoint, error: CellFailure) -> _Failed:
    """With what the process held when it was last looked at, where it died."""
    if not isinstance(error, WorkerDied):
        return _Failed(Failure.of(error))
    words = worker.last_words()
    return _Failed(
        Failure(kind=error.kind, reason=f"{error.reason}; {words}" if words else error.reason),
        f"timed repeats {work.label}",
    )


def timed(worker: Worker, work: GridPoint, meter: Meter) -> Timing:
    """One repeat. Raises CellFailure where it cannot run."""
    time.sleep(_PAUSE_SECONDS)
    first = meter.read()
    prefill = worker.prefill(work)["seconds"]
    second = meter.read()
    decode = worker.decode(work)["seconds"]
    return Timing(prefill, decode, meter.used(first, second), meter.used(second, meter.read()))
