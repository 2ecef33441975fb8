"""Compare a variant with the baseline on each task and on all together: drop, verdict, recovery, changed
answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from quantlab.analysis.paired import MeanDrop
from quantlab.comparison.drops import Drop, Outcome, mean_of_drops, task_drop
from quantlab.comparison.load import BASELINE, ModelRecords, VariantRecords
from quantlab.comparison.verdicts import DETECTABLE, JudgedDrop, judge_all, judge_tasks
from quantlab.records import TaskResult


class Recovery(NamedTuple):
    """A share of the baseline's mean, or the reason why there is none."""

    share: float | None
    reason: str | None


class Changes(NamedTuple):
    """Changed answers, added over tasks, whose items are all different."""

    n: int
    right_to_wrong: int | None
    """None where a metric is not right or wrong."""
    wrong_to_right: int | None
    flips: float | None
    """Share of items whose answer changed between right and wrong."""
    changed_answers: int | None
    """None where the answers were not kept."""


class TaskComparison(NamedTuple):
    """A variant on one task."""

    result: TaskResult | None
    outcome: Outcome
    judged: JudgedDrop | None
    changes: Changes
    detectable_loss: bool | None
    """Whether there is a loss beyond chance; None without a drop."""
    recovery: Recovery
    """The variant's mean over the baseline's, both of the items that both were asked."""
    recovery_above_chance: Recovery
    minimum_detectable_drop_points: float | None
    """None where nothing is known of how much the metric varies."""
    items_to_decide: int | None
    """About how many items would decide at the margin; None likewise."""

    @property
    def drop(self) -> Drop | None:
        """The drop in points; None where there is none."""
        return self.outcome.drop


class RelativeLoss(NamedTuple):
    """The mean drop in per cent of the baseline's mean score, with its 95 % interval."""

    percent: float
    lower: float
    upper: float
    items: int
    """Of all tasks together."""


class MeanComparison(NamedTuple):
    """A variant on all tasks with a drop in points, each counting alike."""

    score: float | None
    drop: MeanDrop | None
    reason: str | None
    """Why there is no drop."""
    judged: JudgedDrop | None
    changes: Changes
    relative: RelativeLoss | None
    no_relative: str | None
    """Why there is no relative loss."""


def compare_tasks(
    records: ModelRecords, variant: VariantRecords, tasks: Sequence[str], failed: Sequence[str]
) -> dict[str, TaskComparison]:
    """By task; those of `failed` have no result anywhere and are not judged."""
    outcomes = {task: task_drop(records, variant, task) for task in (*tasks, *failed)}
    drops = {task: outcome.drop for task, outcome in outcomes.items() if outcome.drop and task in tasks}
    margin = records.recipe.comparison.margin_points
    judged = judge_tasks({task: drop.evidence for task, drop in drops.items()}, margin)
    return {
        task: _task(variant, task, outcome, judged.get(task), margin) for task, outcome in outcomes.items()
    }


def _task(
    variant: VariantRecords, task: str, outcome: Outcome, judged: JudgedDrop | None, margin_points: float
) -> TaskComparison:
    record, drop = variant.tasks, outcome.drop
    result = record.tasks.get(task) if record and not record.failure else None
    p = judged.p_adjusted if judged else None
    least = drop.evidence.minimum_detectable_drop if drop else None
    return TaskComparison(
        result=result,
        outcome=outcome,
        judged=judged,
        changes=changes_of([drop] if drop else []),
        detectable_loss=bool(drop.points > 0 and p is not None and p < DETECTABLE) if drop else None,
        recovery=_recovery(outcome),
        recovery_above_chance=_recovery_above_chance(outcome, result.chance if result else None),
        minimum_detectable_drop_points=100 * least if least is not None else None,
        items_to_decide=drop.evidence.items_to_decide(margin_points) if drop else None,
    )


def _recovery(outcome: Outcome) -> Recovery:
    drop = outcome.drop
    share = drop.variant_mean / drop.reference_mean if drop and drop.reference_mean else None
    return Recovery(share, outcome.reason or "the baseline has none right")


def _recovery_above_chance(outcome: Outcome, chance: float | None) -> Recovery:
    drop = outcome.drop
    if drop is None or chance is None:
        return Recovery(None, outcome.reason or "the task has no chance level")
    above = drop.reference_mean - chance
    share = (drop.variant_mean - chance) / above if above > 0 else None
    return Recovery(share, "the baseline is not above chance")


def changes_of(drops: Sequence[Drop]) -> Changes:
    """The changed answers of several tasks together; None where one does not tell."""
    n = sum(drop.n for drop in drops)
    lost = _sum_of_known([drop.right_to_wrong for drop in drops])
    won = _sum_of_known([drop.wrong_to_right for drop in drops])
    flips = (lost + won) / n if lost is not None and won is not None else None
    return Changes(n, lost, won, flips, _sum_of_known([drop.changed for drop in drops]))


def _sum_of_known(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if counts and len(known) == len(counts) else None


def compare_mean(
    records: ModelRecords,
    variant: VariantRecords,
    tasks: Mapping[str, TaskComparison],
    in_points: Sequence[str],
) -> MeanComparison:
    """The mean over the tasks that have a drop in points; none where one lacks, or rows would average
    different tasks."""
    mean = mean_of_drops(records, variant, {task: tasks[task].outcome for task in in_points})
    drops = [drop for task in in_points if (drop := tasks[task].drop)] if mean.mean else []
    judged = judge_all([drop.evidence for drop in drops], records.recipe.comparison.margin_points)
    relative, why = _relative(records, judged, in_points, sum(drop.n for drop in drops))
    return MeanComparison(
        score=_mean_score(variant, in_points),
        drop=mean.mean,
        reason=mean.reason,
        judged=judged,
        changes=changes_of(drops),
        relative=relative,
        no_relative=mean.reason or why,
    )


def _mean_score(variant: VariantRecords | None, tasks: Sequence[str]) -> float | None:
    record = variant.tasks if variant else None
    if record is None or record.failure or not tasks or not all(task in record.tasks for task in tasks):
        return None
    return sum(record.tasks[task].score.value for task in tasks) / len(tasks)


def _relative(
    records: ModelRecords, judged: JudgedDrop | None, in_points: Sequence[str], items: int
) -> tuple[RelativeLoss | None, str | None]:
    score = _mean_score(records.variants.get(BASELINE), in_points)
    if judged is None or score is None:
        return None, "no interval of the drop: the metric is not right or wrong"
    if score <= 0:
        return None, f"no relative loss: {BASELINE} has no item right"
    ends = judged.ninety_five
    return RelativeLoss(judged.points / score, ends.lower / score, ends.upper / score, items), None
