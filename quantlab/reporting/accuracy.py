"""The accuracy-drop table: one row per variant and task, and their mean, each paired with the baseline item by item."""

from __future__ import annotations

import math

from quantlab.analysis.evidence import Evidence
from quantlab.comparison.drops import Drop, failed_everywhere, task_drop, task_names, tasks_in_points, variant_mean_drop
from quantlab.comparison.load import ModelRecords, VariantRecords, why_no_task
from quantlab.comparison.status import status_of
from quantlab.comparison.verdicts import Judged, interval_text, judge_all, judge_tasks
from quantlab.numbers import fixed, percent, points, significant
from quantlab.reporting.table import Column, Row, Table

MEAN = "mean"


def accuracy_table(records: ModelRecords) -> Table:
    """The mean first, then task by task, so that variants stand below each other.

    A metric that does not lie between 0 and 1 has no drop in points; its difference has a column where there is one.
    """
    tasks, in_points = task_names(records), tasks_in_points(records)
    means = [_mean_row(records, variant, in_points) for variant in records.variants.values()] if len(in_points) != 1 else []
    each = [_task_row(records, variant, task) for task in (*tasks, *failed_everywhere(records)) for variant in records.variants.values()]
    off_scale = any(row.values["difference"] is not None for row in each)
    generated = any(row.values["answer_tokens"] is not None for row in each)
    columns = _COLUMNS if not off_scale else (*_COLUMNS[:4], _DIFFERENCE, *_COLUMNS[4:])
    return Table("accuracy", (*means, *each), (*columns, _TOKENS, _TRUNCATED) if generated else columns)


def _mean_row(records: ModelRecords, variant: VariantRecords, tasks: tuple[str, ...]) -> Row:
    row = Row({"task": MEAN, "variant": variant.slug, "metric": f"mean of {len(tasks)} tasks"})
    found = variant.tasks
    complete = found is not None and not found.failure and bool(tasks) and all(task in found.tasks for task in tasks)
    score = sum(found.tasks[task].score.value for task in tasks) / len(tasks) if found and complete else None
    row.put("score", score, variant.why_not("evaluate"))
    row.put("score_standard_error", None)
    row.put("score_is_share", True)
    _put_difference(row, None, "the mean is over the tasks in points")
    mean, reason = variant_mean_drop(records, variant, tasks)
    row.put("drop_points", mean.points if mean else None, reason)
    row.put("drop_standard_error", mean.standard_error if mean else None)
    drops = [drop for task in tasks if (drop := task_drop(records, variant, task).drop)] if mean else []
    _put_judged(row, judge_all(records, variant) if mean else None, reason)
    _put_flips(row, drops, reason)
    row.put("chance", None)
    row.put("answer_tokens", None)
    row.put("answer_tokens_standard_error", None)
    row.put("truncated_share", None)
    row.put("ties", None)
    row.fail(status_of(variant).failed)
    return row


def _task_row(records: ModelRecords, variant: VariantRecords, task: str) -> Row:
    result = variant.tasks.tasks.get(task) if variant.tasks and not variant.tasks.failure else None
    row = Row({"task": task, "variant": variant.slug, "metric": result.metric if result else None}, notes=variant.notes("evaluate"))
    row.put("score", result.score.value if result else None, why_no_task(variant, task))
    row.put("score_standard_error", result.score.standard_error if result else None)
    outcome = task_drop(records, variant, task)
    row.put("score_is_share", task in tasks_in_points(records))
    _put_difference(row, outcome.difference, outcome.reason or "the metric has a drop in points")
    row.put("drop_points", outcome.drop.points if outcome.drop else None, outcome.reason)
    row.put("drop_standard_error", outcome.drop.standard_error if outcome.drop else None)
    _put_judged(row, judge_tasks(records, variant).get(task), outcome.reason)
    _put_flips(row, [outcome.drop] if outcome.drop else [], outcome.reason)
    row.put("n", outcome.difference.n if outcome.difference else row.values["n"])
    row.put("chance", result.chance if result else None)
    tokens = result.answer_tokens if result else None
    row.put("answer_tokens", tokens.value if tokens else None, "nothing is generated" if result else None)
    row.put("answer_tokens_standard_error", tokens.standard_error if tokens else None)
    row.put("truncated_share", result.truncated_share if result else None, "not known" if result else None)
    row.put("ties", result.ties if result else None)
    row.fail(status_of(variant).failed)
    return row


def _put_judged(row: Row, judged: Judged | None, reason: str | None) -> None:
    """The 95 % interval of the drop and the verdict at the recipe's margin."""
    row.put("drop_lower_points", judged.ninety_five.lower if judged else None)
    row.put("drop_upper_points", judged.ninety_five.upper if judged else None)
    row.put("verdict", judged.verdict if judged else None, reason or "the metric is not right or wrong")


def _put_difference(row: Row, found: Evidence | None, reason: str) -> None:
    """Baseline - variant in the metric's unit; no interval where the clusters are too few."""
    ends = found.ninety_five if found and math.isfinite(found.ninety_five.lower) else None
    row.put("difference", found.drop if found else None, reason)
    row.put("difference_lower", ends.lower if ends else None)
    row.put("difference_upper", ends.upper if ends else None)
    row.put("difference_p", found.p if found and ends else None)


def _put_flips(row: Row, drops: list[Drop], reason: str | None) -> None:
    """Counts of changed answers, added over the tasks, whose items are all different."""
    known = bool(drops) and all(drop.flips is not None for drop in drops)
    n = sum(drop.n for drop in drops)
    lost, won = (sum(getattr(drop, name) or 0 for drop in drops) for name in ("right_to_wrong", "wrong_to_right"))
    why = reason or "the metric is not right or wrong"
    row.put("right_to_wrong", lost if known else None, why)
    row.put("wrong_to_right", won if known else None, why)
    row.put("flips", (lost + won) / n if known else None, why)
    answers = [drop.changed for drop in drops if drop.changed is not None]
    row.put("changed_answers", sum(answers) if drops and len(answers) == len(drops) else None, reason or "the answers were not kept")
    row.put("n", n or None, why)


def _score(value: float, standard_error: float | None, is_share: bool | None) -> str:
    if not is_share:
        return significant(value) + (f" ± {significant(standard_error, 2)}" if standard_error is not None else "")
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
    Column("drop (points) [95 % interval]", ("drop_points", "drop_lower_points", "drop_upper_points"), interval_text),
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
