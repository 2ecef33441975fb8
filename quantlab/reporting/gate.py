"""The gate: which drops of a report are certainly below a margin, for `quantlab check`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from quantlab.analysis.verdict import Counts, items_to_decide, pooled_verdict_interval, verdict_of
from quantlab.errors import QuantlabError, unknown
from quantlab.names import parse_variant
from quantlab.reporting.drops import task_drop, task_names
from quantlab.reporting.load import ModelRecords, VariantRecords
from quantlab.reporting.verdicts import counts_of, interval_text

ALL = "all tasks"


class Judgement(NamedTuple):
    """One drop at the margin."""

    variant: str
    task: str
    verdict: str
    """within margin, worse, undecided or not measured."""
    passed: bool
    drop_points: float | None
    lower_points: float | None
    upper_points: float | None
    n: int | None
    reason: str


def judge(records: ModelRecords, margin: float, tasks: Sequence[str], variants: Sequence[str], allow_undecided: bool) -> list[Judgement]:
    """Each variant on each named task, or on all tasks together. Raises QuantlabError where there is nothing to judge."""
    there = task_names(records)
    for task in tasks:
        if task not in there:
            raise unknown("task in this report", task, there)
    chosen = list(variants) or [slug for slug in records.variants if parse_variant(slug).bits < 16]
    if not there or not chosen:
        raise QuantlabError(f"{records.model} has no {'tasks' if chosen else 'quantized variants'} to judge: run `quantlab evaluate` first")
    groups: list[tuple[str, tuple[str, ...]]] = [(task, (task,)) for task in tasks] or [(ALL if len(there) > 1 else there[0], there)]
    return [_judge(records, records.variants[slug], name, group, margin, allow_undecided) for slug in chosen for name, group in groups]


def _judge(
    records: ModelRecords, variant: VariantRecords, name: str, tasks: Sequence[str], margin: float, allow_undecided: bool
) -> Judgement:
    counts: list[Counts] = []
    for task in tasks:
        outcome = task_drop(records, variant, task)
        found = counts_of(outcome.drop) if outcome.drop else None
        if found is None:
            reason = outcome.reason or f"{task}'s metric is not right or wrong"
            return Judgement(variant.slug, name, "not measured", False, None, None, None, None, reason)
        counts.append(found)
    ninety = pooled_verdict_interval(counts)
    verdict = verdict_of(ninety, margin)
    drop, n = 100 * sum(c.drop for c in counts) / len(counts), sum(c.n for c in counts)
    reason = f"{verdict}, {interval_text(drop, 100 * ninety.lower, 100 * ninety.upper)} points on {n:,} items"
    if verdict == "undecided":
        reason += f"; about {max(items_to_decide(c, margin) for c in counts):,} items per task would decide"
    passed = verdict == "within margin" or (verdict == "undecided" and allow_undecided)
    return Judgement(variant.slug, name, verdict, passed, drop, 100 * ninety.lower, 100 * ninety.upper, n, reason)
