"""The gate: which drops of a report are certainly below a margin, for `quantlab check`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from quantlab.analysis.evidence import Evidence
from quantlab.analysis.verdict import mean_interval, verdict_of
from quantlab.comparison.drops import task_drop, task_names, tasks_in_points
from quantlab.comparison.load import BASELINE, ModelRecords, VariantRecords
from quantlab.comparison.status import COLLAPSED
from quantlab.comparison.verdicts import interval_text
from quantlab.errors import QuantlabError, unknown
from quantlab.names import parse_variant

ALL = "all tasks"


class Judgement(NamedTuple):
    """One drop at the margin."""

    variant: str
    task: str
    verdict: str
    """within margin, worse, undecided, collapsed or not measured."""
    passed: bool
    drop_points: float | None
    lower_points: float | None
    upper_points: float | None
    n: int | None
    reason: str


def judge(records: ModelRecords, margin: float, tasks: Sequence[str], variants: Sequence[str], allow_undecided: bool) -> list[Judgement]:
    """Each variant on each named task, or on all tasks of the recipe and the report together. A variant or task of the
    recipe that nobody ran is not measured. Raises QuantlabError where there is nothing to judge."""
    done, in_points = task_names(records), tasks_in_points(records)
    there = tuple(dict.fromkeys((*records.recipe.tasks.names, *done)))
    for task in tasks:
        if task not in there:
            raise unknown("task in this report", task, there)
    asked = tuple(dict.fromkeys((*records.variants, *records.recipe.variants)))
    for slug in variants:
        if slug not in asked:
            raise unknown("variant in this report", slug, asked)
        if slug == BASELINE:
            raise QuantlabError(f"{BASELINE} cannot be judged, because the drops are against it: name another variant, or none for all")
    chosen = list(dict.fromkeys(variants)) or [slug for slug in asked if parse_variant(slug).bits < 16]
    if not done or not chosen:
        raise QuantlabError(f"{records.model} has no {'tasks' if chosen else 'quantized variants'} to judge: run `quantlab evaluate` first")
    judged = tuple(task for task in there if task not in done or task in in_points) or there
    groups: list[tuple[str, tuple[str, ...]]] = [(task, (task,)) for task in tasks] or [(ALL if len(judged) > 1 else judged[0], judged)]
    found = [records.variants.get(slug) or VariantRecords(parse_variant(slug), None, None, None, None, None, None) for slug in chosen]
    return [_judge(records, variant, name, group, margin, allow_undecided) for variant in found for name, group in groups]


def _judge(
    records: ModelRecords, variant: VariantRecords, name: str, tasks: Sequence[str], margin: float, allow_undecided: bool
) -> Judgement:
    if variant.quantize and variant.quantize.collapsed:
        return Judgement(variant.slug, name, "collapsed", False, None, None, None, None, COLLAPSED)
    evidence: list[Evidence] = []
    for task in tasks:
        outcome = task_drop(records, variant, task)
        if not outcome.drop:
            return Judgement(variant.slug, name, "not measured", False, None, None, None, None, f"{task}: {outcome.reason}")
        evidence.append(outcome.drop.evidence)
    ninety = mean_interval([e.drop for e in evidence], [e.ninety for e in evidence])
    if not math.isfinite(ninety.lower) or not math.isfinite(ninety.upper):
        return Judgement(variant.slug, name, "not measured", False, None, None, None, None, "the interval of the drop is no number")
    verdict = verdict_of(ninety, margin)
    drop, n = 100 * sum(e.drop for e in evidence) / len(evidence), sum(e.n for e in evidence)
    reason = f"{verdict}, {interval_text(drop, 100 * ninety.lower, 100 * ninety.upper)} points on {n:,} items"
    needed = max(e.items_to_decide(margin) or 0 for e in evidence)
    if verdict == "undecided" and needed:
        reason += f"; about {needed:,} items per task would decide"
    passed = verdict == "within margin" or (verdict == "undecided" and allow_undecided)
    return Judgement(variant.slug, name, verdict, passed, drop, 100 * ninety.lower, 100 * ninety.upper, n, reason)
