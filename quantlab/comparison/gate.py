"""Judge which drops of a report are certainly below a margin, for `quantlab check`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from quantlab.analysis.evidence import Evidence
from quantlab.analysis.verdict import mean_interval, verdict_of
from quantlab.comparison.compare import Comparison
from quantlab.comparison.drops import Outcome, task_drop
from quantlab.comparison.load import BASELINE, VariantRecords
from quantlab.comparison.status import COLLAPSED
from quantlab.errors import QuantlabError, unknown
from quantlab.names import parse_variant
from quantlab.numbers import interval_text

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


def judge(
    comparison: Comparison,
    margin: float,
    tasks: Sequence[str],
    variants: Sequence[str],
    allow_undecided: bool,
) -> list[Judgement]:
    """Each variant on each named task, or on all tasks of the recipe and the report together. A variant or
    task of the recipe that nobody ran is not measured. Raises QuantlabError where there is nothing to
    judge."""
    records, done, in_points = comparison.records, comparison.tasks, comparison.tasks_in_points
    there = tuple(dict.fromkeys((*records.recipe.tasks.names, *done)))
    for task in tasks:
        if task not in there:
            raise unknown("task in this report", task, there)
    asked = tuple(dict.fromkeys((*records.variants, *records.recipe.variants)))
    for slug in variants:
        if slug not in asked:
            raise unknown("variant in this report", slug, asked)
        if slug == BASELINE:
            raise QuantlabError(
                f"{BASELINE} cannot be judged, because it is the reference for the drops: name another"
                " variant, or none for all"
            )
    chosen = list(dict.fromkeys(variants)) or [slug for slug in asked if parse_variant(slug).bits < 16]
    if not done or not chosen:
        raise QuantlabError(
            f"{records.model} has no {'tasks' if chosen else 'quantized variants'} to judge: run `quantlab"
            " evaluate` first"
        )
    judged = tuple(task for task in there if task not in done or task in in_points) or there
    groups: list[tuple[str, tuple[str, ...]]] = [(task, (task,)) for task in tasks] or [
        (ALL if len(judged) > 1 else judged[0], judged)
    ]
    return [
        _judge(comparison, slug, name, group, margin, allow_undecided)
        for slug in chosen
        for name, group in groups
    ]


def _outcome(comparison: Comparison, slug: str, task: str) -> Outcome:
    """The drop on a task; of a variant or task of the recipe that nobody ran, the reason why there is
    none."""
    variant = comparison.variants.get(slug)
    if variant is None:
        empty = VariantRecords(parse_variant(slug), None, None, None, None, None, None)
        return task_drop(comparison.records, empty, task)
    compared = variant.tasks.get(task)
    return compared.outcome if compared else task_drop(comparison.records, variant.records, task)


def _judge(
    comparison: Comparison, slug: str, name: str, tasks: Sequence[str], margin: float, allow_undecided: bool
) -> Judgement:
    variant = comparison.variants.get(slug)
    made = variant.records.quantize if variant else None
    if made and made.collapsed:
        return Judgement(slug, name, "collapsed", False, None, None, None, None, COLLAPSED)
    evidence: list[Evidence] = []
    for task in tasks:
        outcome = _outcome(comparison, slug, task)
        if not outcome.drop:
            return Judgement(
                slug, name, "not measured", False, None, None, None, None, f"{task}: {outcome.reason}"
            )
        evidence.append(outcome.drop.evidence)
    ninety = mean_interval([e.drop for e in evidence], [e.ninety for e in evidence])
    if not math.isfinite(ninety.lower) or not math.isfinite(ninety.upper):
        return Judgement(
            slug,
            name,
            "not measured",
            False,
            None,
            None,
            None,
            None,
            "the interval of the drop is not a finite number",
        )
    verdict = verdict_of(ninety, margin)
    drop, n = 100 * sum(e.drop for e in evidence) / len(evidence), sum(e.n for e in evidence)
    reason = f"{verdict}, {interval_text(drop, 100 * ninety.lower, 100 * ninety.upper)} points on {n:,} items"
    needed = max(e.items_to_decide(margin) or 0 for e in evidence)
    if verdict == "undecided" and needed:
        reason += f"; about {needed:,} items per task would decide"
    passed = verdict == "within margin" or (verdict == "undecided" and allow_undecided)
    return Judgement(slug, name, verdict, passed, drop, 100 * ninety.lower, 100 * ninety.upper, n, reason)
