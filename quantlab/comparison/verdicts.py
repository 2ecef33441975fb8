"""The verdict on each variant's tasks and on all of them together, and the table of what the items can decide.

Everything is paired item by item with the baseline; definitions in `quantlab.analysis.verdict`.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

from quantlab.analysis.clustered import MIN_CLUSTERS
from quantlab.analysis.evidence import Evidence
from quantlab.analysis.tango import Interval
from quantlab.analysis.verdict import Verdict, holm, mean_interval, verdict_of
from quantlab.comparison.drops import Drop, task_drop, task_names, tasks_in_points
from quantlab.comparison.load import BASELINE, ModelRecords, VariantRecords
from quantlab.comparison.status import status_of
from quantlab.numbers import fixed, percent
from quantlab.records import TaskResult
from quantlab.reporting.table import Column, Row, Table

DETECTABLE = 0.05
_UNKNOWN = "the items are too few to know how much the metric varies"


class Judged(NamedTuple):
    """A drop with its interval and verdict."""

    points: float
    ninety_five: Interval
    """Of the drop, in points."""
    verdict: Verdict
    p_adjusted: float | None
    """The two-sided p of no difference (McNemar's exact of independent right or wrong answers, by sign flips of whole
    clusters, Student's t of shares), Holm-adjusted over the variant's tasks; None for the pooled drop."""


def evidence_of(records: ModelRecords, variant: VariantRecords) -> dict[str, Evidence]:
    """By task of the report; a task without a drop is left out."""
    found = {task: task_drop(records, variant, task).drop for task in task_names(records)}
    return {task: drop.evidence for task, drop in found.items() if drop}


def judge_tasks(records: ModelRecords, variant: VariantRecords) -> dict[str, Judged]:
    """By task; a task without a drop is left out."""
    margin, evidence = records.recipe.comparison.margin_points, evidence_of(records, variant)
    adjusted = holm({task: e.p for task, e in evidence.items()})
    return {
        task: Judged(100 * e.drop, _points(e.ninety_five), verdict_of(e.ninety, margin), adjusted[task]) for task, e in evidence.items()
    }


def judge_all(records: ModelRecords, variant: VariantRecords) -> Judged | None:
    """The mean drop over all tasks in points, each counting alike; None where one has no drop."""
    evidence = list(evidence_of(records, variant).values())
    if not evidence or len(evidence) < len(tasks_in_points(records)):
        return None
    drops = [e.drop for e in evidence]
    verdict = verdict_of(mean_interval(drops, [e.ninety for e in evidence]), records.recipe.comparison.margin_points)
    return Judged(100 * sum(drops) / len(drops), _points(mean_interval(drops, [e.ninety_five for e in evidence])), verdict, None)


def decisions_table(records: ModelRecords) -> Table:
    """What so many items can decide: one row per variant and task."""
    variants = [variant for variant in records.variants.values() if variant.slug != BASELINE]
    rows = [_row(records, variant, task) for task in tasks_in_points(records) for variant in variants]
    return Table("decisions", tuple(rows), _columns(records.recipe.comparison.margin_points))


def _row(records: ModelRecords, variant: VariantRecords, task: str) -> Row:
    outcome = task_drop(records, variant, task)
    found = outcome.drop.evidence if outcome.drop else None
    judged = judge_tasks(records, variant).get(task)
    result = variant.tasks.tasks.get(task) if variant.tasks else None
    why, margin = outcome.reason, records.recipe.comparison.margin_points
    row = Row({"task": task, "variant": variant.slug}, notes=_notes(found, result))
    row.put("verdict", judged.verdict if judged else None, why)
    p = judged.p_adjusted if judged else None
    row.put("p_holm", p, why)
    row.put("detectable_loss", bool(found.drop > 0 and p is not None and p < DETECTABLE) if found else None, why)
    _put_recovery(row, outcome.drop, result, why)
    least = found.minimum_detectable_drop if found else None
    row.put("minimum_detectable_drop_points", 100 * least if least is not None else None, why or _UNKNOWN)
    row.put("items_to_decide", found.items_to_decide(margin) if found else None, why or _UNKNOWN)
    row.put("items_available", result.available if result else None, why)
    row.put("n", found.n if found else None, why)
    row.put("clusters", found.clusters if found else None, why)
    row.fail(status_of(variant).failed)
    return row


def _notes(found: Evidence | None, result: TaskResult | None) -> tuple[str, ...]:
    notes = []
    if result and result.look and result.look.items < result.look.available:
        wider = f"its intervals are read at {fixed(result.look.quantile, 2)} instead of 1.64 standard errors and so are wider"
        notes.append(f"ended early: {result.look.reason}; {wider}; p takes no account of the looks")
    if found and found.clusters < found.n:
        by = f"{found.n:,} items in {found.clusters:,} clusters (design effect {fixed(found.design_effect, 2)})"
        few = f"fewer than {MIN_CLUSTERS}, too few for an interval or a verdict"
        notes.append(f"{by}: " + (few if found.clusters < MIN_CLUSTERS else "intervals by cluster, p by sign flips of whole clusters"))
    elif found and not found.counts:
        notes.append("the metric is a share per item and not right or wrong: interval and p are Student's t of the paired differences")
    return tuple(notes)


def _put_recovery(row: Row, drop: Drop | None, result: TaskResult | None, why: str | None) -> None:
    """Both means are of the items that both were asked: an early end asks the variant fewer."""
    plain = drop.variant_mean / drop.reference_mean if drop and drop.reference_mean else None
    row.put("recovery", plain, why or "the baseline has none right")
    chance = result.chance if result else None
    over = drop.reference_mean - chance if drop and chance is not None else 0.0
    above = (drop.variant_mean - chance) / over if drop and chance is not None and over > 0 else None
    row.put(
        "recovery_above_chance",
        above,
        why or ("the baseline is not above chance" if chance is not None else "the task has no chance level"),
    )


def _points(share: Interval) -> Interval:
    return Interval(100 * share.lower, 100 * share.upper)


def interval_text(points: float, lower: float | None, upper: float | None) -> str:
    """A drop in points with its 95 % interval."""
    return fixed(points, 1) + (f" [{fixed(lower, 1)}, {fixed(upper, 1)}]" if lower is not None and upper is not None else "")


def _loss(p: float, detectable: bool | None) -> str:
    shown = "p < 0.001" if p < 0.001 else f"p = {fixed(p, 3)}"
    return f"{'yes' if detectable else 'no'} ({shown})"


def needed_text(items: int, available: int | None) -> str:
    """To two digits, the formula is not better than that; `not decidable` where the task has fewer."""
    digits = max(0, math.floor(math.log10(items)) - 1)
    shown = f"{round(items, -digits):,}"
    if available is None:
        return shown
    return f"{shown} (has {available:,})" if items <= available else f"not decidable ({shown}, has {available:,})"


def _columns(margin: float) -> tuple[Column, ...]:
    return (
        Column("task", ("task",), str),
        Column("variant", ("variant",), str),
        Column(f"verdict at {margin:g} point{'s' if margin != 1 else ''}", ("verdict",), str),
        Column("detectable loss (p, Holm)", ("p_holm", "detectable_loss"), _loss),
        Column("recovery", ("recovery",), percent),
        Column("recovery above chance", ("recovery_above_chance",), percent),
        Column("minimum detectable drop (points)", ("minimum_detectable_drop_points",), partial(fixed, decimals=1)),
        Column("items that would decide", ("items_to_decide", "items_available"), needed_text),
        Column("n", ("n",), "{:,}".format),
    )
