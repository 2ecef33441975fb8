"""Stop a paired comparison as soon as its verdict is decided.

Items come in a fixed random order. After each of at most five equal blocks the verdict's interval is read at
that look's quantile (`quantlab.analysis.sequential`), which is wide at first; all looks together spend no
more error than one look at all items would."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from quantlab.analysis.sequential import boundaries, fractions_of, looks
from quantlab.analysis.verdict import Counts, Verdict, verdict_interval, verdict_of


class Stop(NamedTuple):
    """Where a comparison stands after a look."""

    items: int
    """Items looked at."""
    look: int
    """1 for the first."""
    looks: int
    total: int
    """Items that would be looked at in all."""
    verdict: Verdict
    quantile: float
    """This look's boundary."""
    final: bool
    """Whether nothing more needs to be asked."""

    @property
    def reason(self) -> str:
        """Why it stopped, or goes on."""
        if self.verdict != "undecided":
            return f"settled at look {self.look} of {self.looks}, after {self.items:,} items"
        return f"open after all {self.items:,} items" if self.final else f"open after {self.items:,} items"


def after(counts: Sequence[Counts], total: int, margin_points: float) -> Stop:
    """What the looks so far say: `counts` after each of them, of `total` items in all.

    Raises ValueError where the counts are not those of `looks(total)`, from the first on.
    """
    plan = looks(total)
    seen = [c.n for c in counts]
    if not seen or seen != plan[: len(seen)]:
        raise ValueError(f"looks of {total} items are at {plan}, not at {seen}")
    quantiles = boundaries(fractions_of(plan, total))
    for place, (at, z) in enumerate(zip(counts, quantiles, strict=False), start=1):
        verdict = verdict_of(verdict_interval(at, z), margin_points)
        if verdict != "undecided":
            return Stop(at.n, place, len(plan), total, verdict, z, True)
    return Stop(
        seen[-1], len(seen), len(plan), total, "undecided", quantiles[len(seen) - 1], len(seen) == len(plan)
    )
