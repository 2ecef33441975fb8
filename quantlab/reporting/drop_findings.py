"""Sentences about accuracy drops: who is worse, who is within the margin, and what so many items cannot decide."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from quantlab.comparison.drops import Drop, task_drop, tasks_in_points
from quantlab.comparison.load import BASELINE, ModelRecords
from quantlab.comparison.verdicts import interval_text, judge_tasks
from quantlab.numbers import fixed, listing, significant
from quantlab.reporting.table import Row

FALSE_VERDICTS = 0.05
"""One-sided, of each verdict."""


def drop_findings(records: ModelRecords, rows: Sequence[Row]) -> Iterable[str]:
    """The sentences; none where no drop was measured."""
    found = {slug: row for row in rows if (slug := str(row.values["variant"])) != BASELINE and row.values["verdict"]}
    tasks = tasks_in_points(records)
    drops = {slug: [d for task in tasks if (d := task_drop(records, records.variants[slug], task).drop)] for slug in found}
    if not drops:
        return
    margin = records.recipe.comparison.margin_points
    over = f"{'over ' if len(tasks) > 1 else 'on '}{listing(tasks)} ({_items(drops, len(tasks))})"
    worse = [f"{slug} ({_drop(row)} points)" for slug, row in found.items() if row.values["verdict"] == "worse"]
    within = [f"{slug} ({_within(records, slug, row)})" for slug, row in found.items() if row.values["verdict"] == "within margin"]
    undecided = [slug for slug, row in found.items() if row.values["verdict"] == "undecided"]
    at = f"{margin:g} point{'s' if margin != 1 else ''}"
    yield f"Accuracy {over}, at a margin of {at}: worse: {listing(worse)}; within the margin: {listing(within)}."
    if len(found) > 1 and (worse or within):
        yield (
            f"Each of these verdicts may be false in about {100 * FALSE_VERDICTS:g} % of cases: of {len(found)} variants judged, up to "
            f"{fixed(FALSE_VERDICTS * len(found), 1)} by chance. Doubt one that the divergence does not support."
        )
    if undecided:
        known = [items for slug in undecided if (items := _needed(drops[slug], margin))]
        low, high = (_round(min(known)), _round(max(known))) if known else ("", "")
        count = f": at the flips seen that takes about {low if low == high else f'{low} to {high}'} per task" if known else ""
        yield f"So few items cannot decide a loss near {at} for {listing(undecided)}{count}."


def _within(records: ModelRecords, slug: str, row: Row) -> str:
    """The drop, the divergence beside it, and any task that the mean hides."""
    kl = row.number("kl_divergence_nats")
    beside = f", KL divergence {significant(kl)} nats" if kl is not None else ""
    worse = [task for task, judged in judge_tasks(records, records.variants[slug]).items() if judged.verdict == "worse"]
    hidden = f", though worse on {listing(worse)}" if worse and len(tasks_in_points(records)) > 1 else ""
    return f"{_drop(row)} points{beside}{hidden}"


def _drop(row: Row) -> str:
    return interval_text(row.number("mean_drop_points") or 0.0, row.number("mean_drop_lower_points"), row.number("mean_drop_upper_points"))


def _items(drops: Mapping[str, Sequence[Drop]], tasks: int) -> str:
    counts = sorted({drop.n for each in drops.values() for drop in each})
    return f"{counts[0]:,}" + (f" to {counts[-1]:,}" if len(counts) > 1 else "") + (" items each" if tasks > 1 else " items")


def _needed(drops: Sequence[Drop], margin: float) -> int:
    """Items per task that would decide for the task that needs most; 0 where nothing is known of any."""
    return max((drop.evidence.items_to_decide(margin) or 0 for drop in drops), default=0)


def _round(items: int) -> str:
    """Two significant digits: the formula is not better than that."""
    return f"{float(f'{items:.1e}'):,.0f}"
