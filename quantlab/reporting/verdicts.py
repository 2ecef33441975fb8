"""The verdict on each variant's tasks and on all of them together, and the table of what the items can decide.

Everything is paired item by item with the baseline; definitions in `quantlab.analysis.verdict`.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

from quantlab.analysis.tango import Interval, interval
from quantlab.analysis.verdict import (
    Counts,
    Verdict,
    holm,
    items_to_decide,
    mcnemar_p,
    minimum_detectable_drop,
    pooled,
    pooled_verdict_interval,
    verdict_interval,
    verdict_of,
)
from quantlab.reporting.drops import Drop, task_drop, task_names
from quantlab.reporting.load import BASELINE, ModelRecords, VariantRecords
from quantlab.reporting.numbers import fixed, percent
from quantlab.reporting.status import status_of
from quantlab.reporting.table import Column, Row, Table

DETECTABLE = 0.05


class Judged(NamedTuple):
    """A drop with its interval and verdict."""

    points: float
    ninety_five: Interval
    """Of the drop, in points."""
    verdict: Verdict
    p_adjusted: float | None
    """McNemar's exact p, Holm-adjusted over the variant's tasks; None for the pooled drop."""


def counts_of(drop: Drop) -> Counts | None:
    """The counts of a drop; None where the metric is not right or wrong."""
    if drop.right_to_wrong is None or drop.wrong_to_right is None:
        return None
    return Counts(drop.n, drop.right_to_wrong, drop.wrong_to_right)


def judge_tasks(records: ModelRecords, variant: VariantRecords) -> dict[str, Judged]:
    """By task; a task without counts is left out."""
    margin = records.recipe.comparison.margin_points
    counts = {task: c for task, drop in _drops(records, variant).items() if (c := counts_of(drop))}
    adjusted = holm({task: mcnemar_p(c.right_to_wrong, c.wrong_to_right) for task, c in counts.items()})
    return {
        task: Judged(
            100 * c.drop,
            _points(interval(c.right_to_wrong, c.wrong_to_right, c.n)),
            verdict_of(verdict_interval(c), margin),
            adjusted[task],
        )
        for task, c in counts.items()
    }


def judge_all(records: ModelRecords, variant: VariantRecords) -> Judged | None:
    """The mean drop over all tasks of the report, each counting alike; None where one has no counts."""
    tasks, drops = task_names(records), _drops(records, variant)
    counts = [c for drop in drops.values() if (c := counts_of(drop))]
    if not tasks or len(counts) < len(tasks):
        return None
    mean = 100 * sum(c.drop for c in counts) / len(counts)
    verdict = verdict_of(pooled_verdict_interval(counts), records.recipe.comparison.margin_points)
    return Judged(mean, _points(pooled(counts, 0.95)), verdict, None)


def decisions_table(records: ModelRecords) -> Table:
    """What so many items can decide: one row per variant and task."""
    rows = [
        _row(records, variant, task) for task in task_names(records) for variant in records.variants.values() if variant.slug != BASELINE
    ]
    return Table("decisions", tuple(rows), _columns(records.recipe.comparison.margin_points))


def _row(records: ModelRecords, variant: VariantRecords, task: str) -> Row:
    outcome = task_drop(records, variant, task)
    counts = counts_of(outcome.drop) if outcome.drop else None
    judged = judge_tasks(records, variant).get(task)
    why = outcome.reason or "the metric is not right or wrong"
    row = Row({"task": task, "variant": variant.slug})
    row.put("verdict", judged.verdict if judged else None, why)
    p = judged.p_adjusted if judged else None
    row.put("mcnemar_p_holm", p, why)
    row.put("detectable_loss", bool(counts and counts.drop > 0 and p is not None and p < DETECTABLE) if counts else None, why)
    _put_recovery(row, records, variant, task, why)
    row.put("minimum_detectable_drop_points", 100 * minimum_detectable_drop(counts) if counts else None, why)
    needed = items_to_decide(counts, records.recipe.comparison.margin_points) if counts else None
    row.put("items_to_decide", needed, why)
    row.put("n", counts.n if counts else None, why)
    row.fail(status_of(variant).failed)
    return row


def _put_recovery(row: Row, records: ModelRecords, variant: VariantRecords, task: str, why: str) -> None:
    base = records.variants.get(BASELINE)
    ours, theirs = (v.tasks.tasks.get(task) if v and v.tasks else None for v in (variant, base))
    plain = ours.score.value / theirs.score.value if ours and theirs and theirs.score.value else None
    row.put("recovery", plain, why)
    over = theirs.score.value - theirs.chance if theirs and theirs.chance is not None else 0.0
    known = ours and theirs and theirs.chance is not None and over > 0
    above = (ours.score.value - theirs.chance) / over if known and ours and theirs and theirs.chance is not None else None
    row.put("recovery_above_chance", above, "the baseline is not above chance" if plain is not None else why)


def _drops(records: ModelRecords, variant: VariantRecords) -> dict[str, Drop]:
    return {task: drop for task in task_names(records) if (drop := task_drop(records, variant, task).drop)}


def _points(share: Interval) -> Interval:
    return Interval(100 * share.lower, 100 * share.upper)


def interval_text(points: float, lower: float | None, upper: float | None) -> str:
    """A drop in points with its 95 % interval."""
    return fixed(points, 1) + (f" [{fixed(lower, 1)}, {fixed(upper, 1)}]" if lower is not None and upper is not None else "")


def _loss(p: float, detectable: bool | None) -> str:
    shown = "p < 0.001" if p < 0.001 else f"p = {fixed(p, 3)}"
    return f"{'yes' if detectable else 'no'} ({shown})"


def _needed(items: int, available: int | None) -> str:
    digits = max(0, math.floor(math.log10(items)) - 1)
    return f"{round(items, -digits):,}" + (f" (has {available:,})" if available is not None else "")


def _columns(margin: float) -> tuple[Column, ...]:
    return (
        Column("task", ("task",), str),
        Column("variant", ("variant",), str),
        Column(f"verdict at {margin:g} point{'s' if margin != 1 else ''}", ("verdict",), str),
        Column("detectable loss (McNemar, Holm)", ("mcnemar_p_holm", "detectable_loss"), _loss),
        Column("recovery", ("recovery",), percent),
        Column("recovery above chance", ("recovery_above_chance",), percent),
        Column("minimum detectable drop (points)", ("minimum_detectable_drop_points",), partial(fixed, decimals=1)),
        Column("items that would decide", ("items_to_decide", "n"), _needed),
    )
