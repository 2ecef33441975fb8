"""Write the sentences about accuracy drops: which variants are worse, within the margin, or undecided."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from quantlab.comparison.compare import Comparison, VariantComparison
from quantlab.numbers import fixed, interval_text, listing, significant

FALSE_VERDICTS = 0.05
"""One-sided, of each verdict."""


def drop_findings(comparison: Comparison) -> Iterable[str]:
    """The sentences; none where no drop was measured."""
    judged = [
        variant for variant in comparison.variants.values() if variant.mean.judged and not variant.is_baseline
    ]
    if not judged:
        return
    tasks, margin = comparison.tasks_in_points, comparison.margin_points
    over = f"{'over ' if len(tasks) > 1 else 'on '}{listing(tasks)} ({_items(judged, tasks)})"
    worse = [f"{variant.slug} ({_drop(variant)} points)" for variant in _with_verdict(judged, "worse")]
    within = [
        f"{variant.slug} ({_within(variant, tasks)})" for variant in _with_verdict(judged, "within margin")
    ]
    undecided = _with_verdict(judged, "undecided")
    at = f"{margin:g} point{'s' if margin != 1 else ''}"
    yield (
        f"Accuracy {over}, at a margin of {at}: worse: {listing(worse)}; within the margin:"
        f" {listing(within)}."
    )
    if len(judged) > 1 and (worse or within):
        yield (
            f"Each of these verdicts may be false in about {100 * FALSE_VERDICTS:g} % of cases: of"
            f" {len(judged)} variants judged, up to {fixed(FALSE_VERDICTS * len(judged), 1)} by chance."
            " Distrust a verdict that the divergence does not support."
        )
    if undecided:
        yield _too_few(undecided, tasks, at)


def _with_verdict(variants: Sequence[VariantComparison], verdict: str) -> list[VariantComparison]:
    return [variant for variant in variants if variant.mean.judged and variant.mean.judged.verdict == verdict]


def _within(variant: VariantComparison, tasks: Sequence[str]) -> str:
    """The drop, the divergence beside it, and any task that the mean hides."""
    nats = variant.divergence.estimate
    beside = f", KL divergence {significant(nats.value)} nats" if nats else ""
    worse = [task for task, each in variant.tasks.items() if each.judged and each.judged.verdict == "worse"]
    hidden = f", though worse on {listing(worse)}" if worse and len(tasks) > 1 else ""
    return f"{_drop(variant)} points{beside}{hidden}"


def _drop(variant: VariantComparison) -> str:
    mean, judged = variant.mean.drop, variant.mean.judged
    ends = judged.ninety_five if judged else (None, None)
    return interval_text(mean.points if mean else 0.0, *ends)


def _items(variants: Sequence[VariantComparison], tasks: Sequence[str]) -> str:
    drops = [variant.tasks[task].drop for variant in variants for task in tasks]
    counts = sorted({drop.n for drop in drops if drop})
    several = f" to {counts[-1]:,}" if len(counts) > 1 else ""
    return f"{counts[0]:,}" + several + (" items each" if len(tasks) > 1 else " items")


def _too_few(undecided: Sequence[VariantComparison], tasks: Sequence[str], margin: str) -> str:
    known = [items for variant in undecided if (items := _needed(variant, tasks))]
    low, high = (_round(min(known)), _round(max(known))) if known else ("", "")
    range_text = low if low == high else f"{low} to {high}"
    count = f"; at the flips seen, about {range_text} per task are needed" if known else ""
    return f"Too few items to decide at {margin}: {listing(v.slug for v in undecided)}{count}."


def _needed(variant: VariantComparison, tasks: Sequence[str]) -> int:
    """Items per task that would decide for the task that needs most; 0 where nothing is known of any."""
    return max((variant.tasks[task].items_to_decide or 0 for task in tasks), default=0)


def _round(items: int) -> str:
    """Two significant digits: the formula is not better than that."""
    return f"{float(f'{items:.1e}'):,.0f}"
