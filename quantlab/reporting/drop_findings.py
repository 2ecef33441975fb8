"""Sentences about accuracy drops. No verdict is given: a standard error alone cannot carry one.

They name the drops that stand out from their standard error, and say what so many items cannot decide.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from quantlab.reporting import numbers
from quantlab.reporting.drops import Drop, task_drop, task_names
from quantlab.reporting.load import BASELINE, ModelRecords
from quantlab.reporting.numbers import listing
from quantlab.reporting.table import Row

MARGIN_POINTS = 1.0
ITEMS_WITHOUT_FLIPS = 270
"""Items that bound a drop below one point where no answer flips: U = z^2 / (n + z^2) of Tango's interval, z = 1.645."""
ITEMS_PER_FLIP = 6.18
"""(z(0.95) + z(0.80))^2: the items that decide at a margin m are about this × flips / m^2."""


def drop_findings(records: ModelRecords, rows: Sequence[Row]) -> Iterable[str]:
    """The sentences; none where no drop was measured."""
    found = {
        slug: row for row in rows if (slug := str(row.values["variant"])) != BASELINE and row.number("mean_drop_standard_error") is not None
    }
    tasks = task_names(records)
    drops = {slug: [d for task in tasks if (d := task_drop(records, records.variants[slug], task).drop)] for slug in found}
    if not drops:
        return
    mean = "mean accuracy drop" if len(tasks) > 1 else "accuracy drop"
    named = [text for row in found.values() if (text := _outstanding(row))]
    which = (
        f"is more than twice its standard error for {listing(named)}" if named else "of no variant is more than twice its standard error"
    )
    yield f"The {mean} on {listing(tasks)} ({_items(drops, len(tasks))}) {which}."
    yield from _smallest(found, mean)
    # A drop that stands out from the margin is decided, whatever the number of items.
    yield from _undecided({slug: drops[slug] for slug, row in found.items() if not _clear(row)})


def _smallest(found: Mapping[str, Row], mean: str) -> Iterable[str]:
    """By the measured mean; the sentence after it says what that is worth."""
    low = [r for r in found.values() if (r.number("mean_drop_points") or 0) <= MARGIN_POINTS and int(str(r.values["bits"])) < 16]
    sized = [r for r in low if r.number("disk_bytes") is not None and r.values["status"] != "collapsed"]
    best = min(sized, key=lambda r: r.number("disk_bytes") or 0, default=None)
    if best:
        drop = numbers.points(best.number("mean_drop_points") or 0.0, best.number("mean_drop_standard_error"))
        shown = f"{drop} points" if "±" in drop else drop
        yield f"The smallest checkpoint with a measured {mean} of at most {MARGIN_POINTS:g} point is {best.values['variant']} ({shown})."


def _clear(row: Row) -> bool:
    return (row.number("mean_drop_points") or 0) - 2 * (row.number("mean_drop_standard_error") or 0) > MARGIN_POINTS


def _outstanding(row: Row) -> str:
    drop, error = row.number("mean_drop_points"), row.number("mean_drop_standard_error")
    if drop is None or error is None or not drop > 2 * error > 0:
        return ""
    return f"{row.values['variant']} ({numbers.points(drop, error)} points)"


def _items(drops: Mapping[str, Sequence[Drop]], tasks: int) -> str:
    counts = sorted({drop.n for each in drops.values() for drop in each})
    return f"{counts[0]:,}" + (f" to {counts[-1]:,}" if len(counts) > 1 else "") + (" items each" if tasks > 1 else " items")


def _undecided(drops: Mapping[str, Sequence[Drop]]) -> Iterable[str]:
    """What the number of items cannot decide near the margin."""
    needed = {slug: _needed(each) for slug, each in drops.items()}
    short = [slug for slug, each in drops.items() if min(drop.n for drop in each) < needed[slug]]
    if not short:
        return
    low, high = (_round(end(needed[slug] for slug in short)) for end in (min, max))
    who = "" if len(short) == len(drops) else f" for {listing(short)}"
    count = low if low == high else f"{low} to {high}"
    yield f"So few items cannot decide a loss near {MARGIN_POINTS:g} point{who}: at the flips seen here that takes about {count} per task."


def _needed(drops: Sequence[Drop]) -> float:
    """Items per task that would decide at the margin, at the mean share of flips seen."""
    flips = [drop.flips for drop in drops if drop.flips is not None]
    mean = sum(flips) / len(flips) if flips else 0.0
    return max(float(ITEMS_WITHOUT_FLIPS), ITEMS_PER_FLIP * mean / (MARGIN_POINTS / 100) ** 2)


def _round(items: float) -> str:
    """Two significant digits: the formula is not better than that."""
    return f"{float(f'{items:.1e}'):,.0f}"
