"""Judge a variant on each task and on all tasks together.

Everything is paired item by item with the baseline; definitions in `quantlab.analysis.verdict`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from quantlab.analysis.evidence import Evidence
from quantlab.analysis.tango import Interval
from quantlab.analysis.verdict import Verdict, holm, mean_interval, verdict_of

DETECTABLE = 0.05
"""A p below this, Holm-adjusted, is a loss beyond chance."""


class JudgedDrop(NamedTuple):
    """A drop with its interval and verdict."""

    points: float
    ninety_five: Interval
    """Of the drop, in points."""
    verdict: Verdict
    p_adjusted: float | None
    """The two-sided p of no difference (McNemar's exact of independent right or wrong answers, by sign flips
    of whole clusters, Student's t of shares), Holm-adjusted over the variant's tasks; None for the pooled
    drop."""


def judge_tasks(evidence: Mapping[str, Evidence], margin_points: float) -> dict[str, JudgedDrop]:
    """By task, of a variant's drops on all tasks of the report."""
    adjusted = holm({task: each.p for task, each in evidence.items()})
    return {
        task: JudgedDrop(
            100 * each.drop, _points(each.ninety_five), verdict_of(each.ninety, margin_points), adjusted[task]
        )
        for task, each in evidence.items()
    }


def judge_all(evidence: Sequence[Evidence], margin_points: float) -> JudgedDrop | None:
    """The mean drop over all tasks in points, each counting alike; None without a task."""
    if not evidence:
        return None
    drops = [each.drop for each in evidence]
    verdict = verdict_of(mean_interval(drops, [each.ninety for each in evidence]), margin_points)
    ninety_five = _points(mean_interval(drops, [each.ninety_five for each in evidence]))
    return JudgedDrop(100 * sum(drops) / len(drops), ninety_five, verdict, None)


def _points(share: Interval) -> Interval:
    return Interval(100 * share.lower, 100 * share.upper)
