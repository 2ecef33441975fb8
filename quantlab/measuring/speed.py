"""Timed repeats of every workload, the variant and the 16-bit variant of its engine in turn.

Both processes hold their model at the same time and run one repeat each: V B V B ... A machine that gets slower or
warmer on the way then slows both, and the ratio is of pairs that were measured within the same seconds.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from quantlab.errors import CellFailure
from quantlab.measuring.driver import Worker, Workload
from quantlab.measuring.energy import Meter
from quantlab.progress import Step
from quantlab.records import Failure

_PAUSE_SECONDS = 0.02
"""Threads of the other process spin for some milliseconds after their last work."""


class Timing(NamedTuple):
    """One repeat."""

    prefill_seconds: float
    decode_seconds: float
    prefill_joules: float | None
    decode_joules: float | None


class Timings(NamedTuple):
    """All repeats of one workload by one process, in the order taken, or why there are none."""

    work: Workload
    repeats: tuple[Timing, ...] = ()
    failure: Failure | None = None

    def joules_per_token(self, decode: bool) -> float | None:
        """Over all repeats; None without a counter."""
        used = [t.decode_joules if decode else t.prefill_joules for t in self.repeats]
        known = [joules for joules in used if joules is not None]
        tokens = self.work.batch * (self.work.decode if decode else self.work.length) * len(used)
        return sum(known) / tokens if known and len(known) == len(used) else None


class Turns(NamedTuple):
    """One workload's repeats, the variant's and the 16-bit variant's."""

    ours: Timings
    theirs: Timings | None = None


def alternate(ours: Worker, theirs: Worker | None, work: Workload, repeats: int, meter: Meter, step: Step) -> Turns:
    """Warm both up where their last run was another workload, then take turns. What fails of theirs stops theirs alone."""
    mine: list[Timing] = []
    others: list[Timing] = []
    their_failure: Failure | None = None
    try:
        ours.warm_up(work)
    except CellFailure as error:
        return Turns(Timings(work, failure=Failure.of(error)))
    if theirs is not None:
        try:
            theirs.warm_up(work)
        except CellFailure as error:
            their_failure = Failure.of(error)
    for _ in range(repeats):
        try:
            mine.append(timed(ours, work, meter))
        except CellFailure as error:
            return Turns(Timings(work, failure=Failure.of(error)))
        if theirs is not None and their_failure is None:
            try:
                others.append(timed(theirs, work, meter))
            except CellFailure as error:
                their_failure = Failure.of(error)
        step.advance()
    kept = tuple(others) if their_failure is None else ()
    return Turns(Timings(work, tuple(mine)), None if theirs is None else Timings(work, kept, their_failure))


def timed(worker: Worker, work: Workload, meter: Meter) -> Timing:
    """One repeat. Raises CellFailure where it cannot run."""
    time.sleep(_PAUSE_SECONDS)
    first = meter.read()
    prefill = worker.prefill(work)["seconds"]
    second = meter.read()
    decode = worker.decode(work)["seconds"]
    return Timing(prefill, decode, meter.used(first, second), meter.used(second, meter.read()))
