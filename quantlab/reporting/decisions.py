"""Tabulate what the items can decide: one row per variant and task."""

from __future__ import annotations

import math
from functools import partial

from quantlab.analysis.clustered import MIN_CLUSTERS
from quantlab.analysis.evidence import Evidence
from quantlab.comparison.compare import Comparison, VariantComparison
from quantlab.numbers import fixed, percent
from quantlab.records import TaskResult
from quantlab.reporting.table import Column, Row, Table

_UNKNOWN = "the items are too few to know how much the metric varies"


def decisions_table(comparison: Comparison) -> Table:
    """One row per task in points and variant that was compared with the baseline."""
    variants = [variant for variant in comparison.variants.values() if not variant.is_baseline]
    rows = [_row(variant, task) for task in comparison.tasks_in_points for variant in variants]
    return Table("decisions", tuple(rows), _columns(comparison.margin_points))


def _row(variant: VariantComparison, task: str) -> Row:
    compared = variant.tasks[task]
    evidence, judged, result = (
        compared.drop.evidence if compared.drop else None,
        compared.judged,
        compared.result,
    )
    why = compared.outcome.reason
    row = Row({"task": task, "variant": variant.slug}, notes=_notes(evidence, result))
    row.put("verdict", judged.verdict if judged else None, why)
    row.put("p_holm", judged.p_adjusted if judged else None, why)
    row.put("detectable_loss", compared.detectable_loss, why)
    row.put("recovery", compared.recovery.share, compared.recovery.reason)
    row.put(
        "recovery_above_chance", compared.recovery_above_chance.share, compared.recovery_above_chance.reason
    )
    row.put("minimum_detectable_drop_points", compared.minimum_detectable_drop_points, why or _UNKNOWN)
    row.put("items_to_decide", compared.items_to_decide, why or _UNKNOWN)
    row.put("items_available", result.available if result else None, why)
    row.put("n", evidence.n if evidence else None, why)
    row.put("clusters", evidence.clusters if evidence else None, why)
    row.fail(variant.status.failed)
    return row


def _notes(evidence: Evidence | None, result: TaskResult | None) -> tuple[str, ...]:
    notes = []
    if result and result.look and result.look.items < result.look.available:
        read_at = f"its intervals reach {fixed(result.look.quantile, 2)} instead of 1.64 standard errors"
        wider = f"{read_at} and so are wider"
        notes.append(f"ended early: {result.look.reason}; {wider}; p does not account for the looks")
    if evidence and evidence.clusters < evidence.n:
        by = (
            f"{evidence.n:,} items in {evidence.clusters:,} clusters (design effect"
            f" {fixed(evidence.design_effect, 2)})"
        )
        few = f"fewer than {MIN_CLUSTERS}, too few for an interval or a verdict"
        enough = "intervals by cluster, p by sign flips of whole clusters"
        notes.append(f"{by}: " + (few if evidence.clusters < MIN_CLUSTERS else enough))
    elif evidence and not evidence.counts:
        how = "interval and p are Student's t of the paired differences"
        notes.append(f"the metric gives a share for each item, not right or wrong: {how}")
    return tuple(notes)


def _loss(p: float, detectable: bool | None) -> str:
    shown = "p < 0.001" if p < 0.001 else f"p = {fixed(p, 3)}"
    return f"{'yes' if detectable else 'no'} ({shown})"


def needed_text(items: int, available: int | None) -> str:
    """To two digits, the formula is not better than that; `not decidable` where the task has fewer."""
    digits = max(0, math.floor(math.log10(items)) - 1)
    shown = f"{round(items, -digits):,}"
    if available is None:
        return shown
    return (
        f"{shown} (has {available:,})"
        if items <= available
        else f"not decidable ({shown}, has {available:,})"
    )


def _columns(margin: float) -> tuple[Column, ...]:
    return (
        Column("task", ("task",), str),
        Column("variant", ("variant",), str),
        Column(f"verdict at {margin:g} point{'s' if margin != 1 else ''}", ("verdict",), str),
        Column("detectable loss (p, Holm)", ("p_holm", "detectable_loss"), _loss),
        Column("recovery", ("recovery",), percent),
        Column("recovery above chance", ("recovery_above_chance",), percent),
        Column(
            "minimum detectable drop (points)",
            ("minimum_detectable_drop_points",),
            partial(fixed, decimals=1),
        ),
        Column("items that would decide", ("items_to_decide", "items_available"), needed_text),
        Column("n", ("n",), "{:,}".format),
    )
