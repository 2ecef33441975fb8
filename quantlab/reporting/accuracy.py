"""Tabulate accuracy drops: one row per variant and task, and their mean, each paired with the baseline item
by item."""

from __future__ import annotations

import math

from quantlab.analysis.evidence import Evidence
from quantlab.comparison.compare import Comparison, VariantComparison
from quantlab.comparison.load import why_no_task
from quantlab.comparison.tasks import Changes
from quantlab.comparison.verdicts import JudgedDrop
from quantlab.numbers import fixed, interval_text, percent, points, significant
from quantlab.reporting.table import Column, Row, Table

MEAN = "mean"
_OF_ONE_TASK = ("chance", "answer_tokens", "answer_tokens_standard_error", "truncated_share", "ties")


def accuracy_table(comparison: Comparison) -> Table:
    """The mean first, then task by task, so that variants stand below each other.

    A metric that does not lie between 0 and 1 has no drop in points; its difference has a column where there
    is one."""
    variants, tasks = list(comparison.variants.values()), (*comparison.tasks, *comparison.failed_tasks)
    several = len(comparison.tasks_in_points) != 1
    means = [_mean_row(variant, len(comparison.tasks_in_points)) for variant in variants] if several else []
    each = [_task_row(comparison, variant, task) for task in tasks for variant in variants]
    compared = [variant.tasks[task] for task in tasks for variant in variants]
    off_scale = any(one.outcome.difference for one in compared)
    generated = any(one.result and one.result.answer_tokens for one in compared)
    columns = _COLUMNS if not off_scale else (*_COLUMNS[:4], _DIFFERENCE, *_COLUMNS[4:])
    return Table("accuracy", (*means, *each), (*columns, _TOKENS, _TRUNCATED) if generated else columns)


def _mean_row(variant: VariantComparison, tasks: int) -> Row:
    row, mean = Row({"task": MEAN, "variant": variant.slug, "metric": f"mean of {tasks} tasks"}), variant.mean
    row.put("score", mean.score, variant.records.why_not("evaluate"))
    row.put("score_standard_error", None)
    row.put("score_is_share", True)
    _put_difference(row, None, "the mean is over the tasks in points")
    row.put("drop_points", mean.drop.points if mean.drop else None, mean.reason)
    row.put("drop_standard_error", mean.drop.standard_error if mean.drop else None)
    _put_judged(row, mean.judged, mean.reason)
    _put_changes(row, mean.changes, mean.reason)
    for key in _OF_ONE_TASK:
        row.put(key, None)
    row.fail(variant.status.failed)
    return row


def _task_row(comparison: Comparison, variant: VariantComparison, task: str) -> Row:
    compared, notes = variant.tasks[task], variant.records.notes("evaluate")
    result, outcome = compared.result, compared.outcome
    row = Row(
        {"task": task, "variant": variant.slug, "metric": result.metric if result else None}, notes=notes
    )
    row.put("score", result.score.value if result else None, why_no_task(variant.records, task))
    row.put("score_standard_error", result.score.standard_error if result else None)
    row.put("score_is_share", task in comparison.tasks_in_points)
    _put_difference(row, outcome.difference, outcome.reason or "the metric has a drop in points")
    row.put("drop_points", outcome.drop.points if outcome.drop else None, outcome.reason)
    row.put("drop_standard_error", outcome.drop.standard_error if outcome.drop else None)
    _put_judged(row, compared.judged, outcome.reason)
    _put_changes(row, compared.changes, outcome.reason)
    if outcome.difference:
        row.put("n", outcome.difference.n)
    row.put("chance", result.chance if result else None)
    tokens = result.answer_tokens if result else None
    row.put("answer_tokens", tokens.value if tokens else None, "nothing is generated" if result else None)
    row.put("answer_tokens_standard_error", tokens.standard_error if tokens else None)
    row.put("truncated_share", result.truncated_share if result else None, "not known" if result else None)
    row.put("ties", result.ties if result else None)
    row.fail(variant.status.failed)
    return row


def _put_judged(row: Row, judged: JudgedDrop | None, reason: str | None) -> None:
    """The 95 % interval of the drop and the verdict at the recipe's margin."""
    row.put("drop_lower_points", judged.ninety_five.lower if judged else None)
    row.put("drop_upper_points", judged.ninety_five.upper if judged else None)
    row.put("verdict", judged.verdict if judged else None, reason or "the metric is not right or wrong")


def _put_difference(row: Row, evidence: Evidence | None, reason: str) -> None:
    """Baseline - variant in the metric's unit; no interval where the clusters are too few."""
    ends = evidence.ninety_five if evidence and math.isfinite(evidence.ninety_five.lower) else None
    row.put("difference", evidence.drop if evidence else None, reason)
    row.put("difference_lower", ends.lower if ends else None)
    row.put("difference_upper", ends.upper if ends else None)
    row.put("difference_p", evidence.p if evidence and ends else None)


def _put_changes(row: Row, changes: Changes, reason: str | None) -> None:
    why = reason or "the metric is not right or wrong"
    row.put("right_to_wrong", changes.right_to_wrong, why)
    row.put("wrong_to_right", changes.wrong_to_right, why)
    row.put("flips", changes.flips, why)
    row.put("changed_answers", changes.changed_answers, reason or "the answers were not kept")
    row.put("n", changes.n or None, why)


def _score(value: float, standard_error: float | None, is_share: bool | None) -> str:
    if not is_share:
        return significant(value) + (
            f" ± {significant(standard_error, 2)}" if standard_error is not None else ""
        )
    return points(100 * value, 100 * standard_error if standard_error is not None else None)


def _difference(value: float, lower: float | None, upper: float | None) -> str:
    if lower is None or upper is None:
        return significant(value)
    decimals = max(0, 2 - math.floor(math.log10(upper - lower))) if upper > lower else 3
    return " ".join((fixed(value, decimals), f"[{fixed(lower, decimals)}, {fixed(upper, decimals)}]"))


_TOKENS = Column("tokens per answer", ("answer_tokens", "answer_tokens_standard_error"), points)
_TRUNCATED = Column("answers cut at the limit", ("truncated_share",), percent)
_COLUMNS = (
    Column("task", ("task",), str),
    Column("variant", ("variant",), str),
    Column("score (%)", ("score", "score_standard_error", "score_is_share"), _score),
    Column(
        "drop (points) [95 % interval]",
        ("drop_points", "drop_lower_points", "drop_upper_points"),
        interval_text,
    ),
    Column("verdict", ("verdict",), str),
    Column("right to wrong", ("right_to_wrong",), "{:,}".format),
    Column("wrong to right", ("wrong_to_right",), "{:,}".format),
    Column("flips", ("flips",), percent),
    Column("changed answers", ("changed_answers",), "{:,}".format),
    Column("n", ("n",), "{:,}".format),
)
_DIFFERENCE = Column(
    "difference (baseline - variant, the metric's unit) [95 % interval]",
    ("difference", "difference_lower", "difference_upper"),
    _difference,
)
