"""Compute the accuracy drop of a variant on each task: paired with the baseline on the items that both
answered.

Compared only where task version, few-shot, chat template, metric and the items' own hashes are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from quantlab.analysis.evidence import Evidence, weigh
from quantlab.analysis.paired import MeanDrop, mean_drop
from quantlab.analysis.verdict import Z05
from quantlab.comparison.load import BASELINE, ModelRecords, VariantRecords, why_no_task
from quantlab.records import TaskRecord

_ITEM = ["doc_id", "doc_hash"]
_SUBTASK, _PROMPT = "subtask", "prompt_hash"
"""In samples that say it: the member of a group, and the hash of the prompt with its examples."""


class Drop(NamedTuple):
    """A paired drop in percentage points of a metric that lies between 0 and 1, on the items that both were
    asked."""

    n: int
    points: float
    standard_error: float | None
    right_to_wrong: int | None
    """None where the metric is a share per item and not right or wrong."""
    wrong_to_right: int | None
    evidence: Evidence
    """Its intervals and p."""
    reference_mean: float
    """Of the baseline on these items, which are fewer than all where the variant's evaluation ended early."""
    variant_mean: float
    changed: int | None = None
    """Items whose answer is another one, right or wrong; None where the answers were not kept."""

    @property
    def flips(self) -> float | None:
        """Share of items whose answer changed between right and wrong."""
        if self.right_to_wrong is None or self.wrong_to_right is None:
            return None
        return (self.right_to_wrong + self.wrong_to_right) / self.n


class Outcome(NamedTuple):
    """A drop, or the reason why there is none."""

    drop: Drop | None
    reason: str | None
    difference: Evidence | None = None
    """Baseline - variant in the metric's own unit, where it does not lie between 0 and 1 and has no drop in
    points."""


class MeanOutcome(NamedTuple):
    """A mean drop over all tasks, or the reason why there is none."""

    mean: MeanDrop | None
    reason: str | None


def task_names(records: ModelRecords) -> tuple[str, ...]:
    """Every task that any variant has a result of: the recipe's order, then others."""
    done = {task for variant in records.variants.values() if variant.tasks for task in variant.tasks.tasks}
    return tuple(
        [t for t in records.recipe.tasks.names if t in done] + sorted(done - set(records.recipe.tasks.names))
    )


def failed_everywhere(records: ModelRecords) -> tuple[str, ...]:
    """Tasks that were asked and that no variant has a result of."""
    asked = dict.fromkeys(
        task for variant in records.variants.values() if variant.tasks for task in variant.tasks.failed
    )
    return tuple(task for task in asked if task not in task_names(records))


def task_drop(records: ModelRecords, variant: VariantRecords, task: str) -> Outcome:
    """The drop of a variant on one task against the baseline."""
    record = variant.tasks
    if variant.slug == BASELINE and not variant.failure:
        return Outcome(None, "reference for the drops")
    if record is None or record.failure or task not in record.tasks:
        return Outcome(None, why_no_task(variant, task))
    baseline = records.variants.get(BASELINE)
    if baseline is None or baseline.tasks is None or task not in baseline.tasks.tasks:
        reason = why_no_task(baseline, task) if baseline else "it has no records"
        return Outcome(
            None, f"the drop is not measured: {BASELINE} has no result of {task} to compare with ({reason})"
        )
    unlike = _unlike(baseline.tasks, record, task)
    if unlike:
        return Outcome(None, f"not comparable with {BASELINE}: {unlike}")
    if variant.samples is None or baseline.samples is None:
        lacking = variant.slug if variant.samples is None else BASELINE
        return Outcome(None, f"the drop is not measured: the per-item results of {lacking} are missing")
    result = record.tasks[task]
    z = result.look.quantile if result.look else Z05
    reference_items, items = (
        items_of(frame, task, result.metric) for frame in (baseline.samples, variant.samples)
    )
    return _compare(reference_items, items, result.metric, z)


def tasks_in_points(records: ModelRecords) -> tuple[str, ...]:
    """The tasks that a mean drop is over: all of the report but those whose metric does not lie between 0 and
    1."""
    return tuple(task for task in task_names(records) if not _off_scale(records, task))


def _off_scale(records: ModelRecords, task: str) -> bool:
    """Whether an item of the first variant that has the task lies outside 0 and 1; the baseline is the
    first."""
    for variant in records.variants.values():
        if variant.samples is not None and variant.tasks and task in variant.tasks.tasks:
            values = items_of(variant.samples, task, variant.tasks.tasks[task].metric)["value"]
            return bool(len(values)) and not values.between(0, 1).all()
    return False


def mean_of_drops(
    records: ModelRecords, variant: VariantRecords, outcomes: Mapping[str, Outcome]
) -> MeanOutcome:
    """The mean over the tasks of the report that have a drop in points; none where one lacks."""
    if not outcomes:
        return MeanOutcome(
            None,
            (
                variant.why_not("evaluate")
                if not task_names(records)
                else "no task has a metric between 0 and 1"
            ),
        )
    drops = [outcome.drop for outcome in outcomes.values() if outcome.drop]
    if len(drops) < len(outcomes):
        return MeanOutcome(None, next(outcome.reason for outcome in outcomes.values() if outcome.reason))
    return MeanOutcome(mean_drop([d.points for d in drops], [d.standard_error for d in drops]), None)


def _unlike(baseline: TaskRecord, variant: TaskRecord, task: str) -> str:
    a, b = baseline.tasks[task], variant.tasks[task]
    if a.metric != b.metric:
        return f"metric {b.metric} against {a.metric}"
    if a.filter != b.filter:
        return f"filter {b.filter} against {a.filter}"
    if (a.task_version, a.fewshot, baseline.chat_template) != (
        b.task_version,
        b.fewshot,
        variant.chat_template,
    ):
        return "another task version, number of few-shot examples or chat template"
    return ""


def items_of(samples: pd.DataFrame, task: str, metric: str) -> pd.DataFrame:
    """The items of one task with their values of one metric; samples hold a row for every metric."""
    columns = [
        *_ITEM,
        "value",
        *(column for column in (_SUBTASK, _PROMPT, "answer", "cluster") if column in samples.columns),
    ]
    return samples.loc[(samples["task"] == task) & (samples["metric"] == metric), columns]


def _compare(baseline: pd.DataFrame, variant: pd.DataFrame, metric: str, z: float) -> Outcome:
    same = [*_ITEM, *([_SUBTASK] if _SUBTASK in baseline.columns and _SUBTASK in variant.columns else [])]
    if baseline.duplicated(same).any() or variant.duplicated(same).any():
        return Outcome(None, "not comparable: an item has several results")
    both = baseline.merge(
        variant, on=same, suffixes=("_baseline", "_variant"), validate="one_to_one"
    ).sort_values(same)
    if unpaired := _why_unpaired(both):
        return Outcome(None, f"not comparable with {BASELINE}: {unpaired}")
    clusters = tuple(both["cluster_variant"]) if "cluster_variant" in both.columns else None
    try:
        evidence = weigh(both["value_baseline"], both["value_variant"], clusters, z)
    except ValueError as fault:
        return Outcome(None, f"not comparable with {BASELINE}: {fault}")
    if not evidence.bounded:
        return Outcome(
            None,
            f"{metric} does not lie between 0 and 1: see its paired difference in the accuracy table",
            evidence,
        )
    return Outcome(_drop(both, evidence), None)


def _why_unpaired(both: pd.DataFrame) -> str | None:
    """Why the items that both answered cannot be compared; None where they can."""
    if both.empty:
        return "no item in common"
    if {f"{_PROMPT}_baseline", f"{_PROMPT}_variant"} <= set(both.columns):
        other = int((both[f"{_PROMPT}_baseline"] != both[f"{_PROMPT}_variant"]).sum())
        if other:
            return f"{other:,} of {len(both):,} items were asked with another prompt"
    values = both[["value_baseline", "value_variant"]].to_numpy(float)
    not_finite = int((~np.isfinite(values).all(axis=1)).sum())
    if not_finite:
        return f"the results of {not_finite:,} of {len(both):,} items are infinite or not a number"
    return None


def _drop(both: pd.DataFrame, evidence: Evidence) -> Drop:
    answers_kept = {"answer_baseline", "answer_variant"} <= set(both.columns)
    changed = int((both["answer_baseline"] != both["answer_variant"]).sum()) if answers_kept else None
    lost, won = evidence.counts[1:] if evidence.counts else (None, None)
    error = 100 * evidence.standard_error if evidence.standard_error is not None else None
    return Drop(
        n=evidence.n,
        points=100 * evidence.drop,
        standard_error=error,
        right_to_wrong=lost,
        wrong_to_right=won,
        evidence=evidence,
        reference_mean=float(both["value_baseline"].to_numpy(float).mean()),
        variant_mean=float(both["value_variant"].to_numpy(float).mean()),
        changed=changed,
    )
