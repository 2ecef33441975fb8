"""Compare the variants of a model: everything that sets one beside another, computed once, as typed values.

Tables, plots, sentences, metrics and the gate show these values and compute nothing of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from quantlab.comparison.caches import CacheComparison, compare_caches
from quantlab.comparison.divergences import DivergenceComparison, compare_divergence
from quantlab.comparison.drops import failed_everywhere, task_names, tasks_in_points
from quantlab.comparison.footprint import KINDS, Saving, disk, peak_kind, runtime
from quantlab.comparison.frontier import Point, pareto_frontier, pareto_point
from quantlab.comparison.load import BASELINE, ModelRecords, VariantRecords
from quantlab.comparison.nearest import NearestComparison, compare_nearest
from quantlab.comparison.quoted import Quoted, compare_quoted
from quantlab.comparison.ranking import Place, Rankable, ranking
from quantlab.comparison.references import against_another
from quantlab.comparison.speeds import PointSpeed, compare_speeds, first_speed
from quantlab.comparison.status import Status, status_of
from quantlab.comparison.tasks import MeanComparison, TaskComparison, compare_mean, compare_tasks


@dataclass(frozen=True)
class VariantComparison:
    """One variant beside the unquantized model and the 16-bit variant of its engine."""

    records: VariantRecords
    engine: str | None
    status: Status
    disk: Saving
    peak: Saving
    """Of `Comparison.peak_kind`."""
    memory: Mapping[str, Saving]
    """By kind of bytes at run time."""
    divergence: DivergenceComparison
    nearest: NearestComparison
    tasks: Mapping[str, TaskComparison]
    """Of every task that any variant has a result of, and of those that failed everywhere."""
    mean: MeanComparison
    speeds: tuple[PointSpeed, ...]
    first_speed: PointSpeed | None
    """At the smallest batch and context."""
    quoted: Quoted

    @property
    def slug(self) -> str:
        """The variant's name."""
        return self.records.slug

    @property
    def bits(self) -> int:
        """The width in the variant's name."""
        return self.records.variant.bits

    @property
    def method(self) -> str:
        """The method in the variant's name."""
        return self.records.variant.method

    @property
    def quantized(self) -> bool:
        """Whether it has fewer than 16 bits."""
        return self.bits < 16

    @property
    def is_baseline(self) -> bool:
        """Whether the drops are measured against it."""
        return self.slug == BASELINE


@dataclass(frozen=True)
class Comparison:
    """All variants of a model on one device."""

    records: ModelRecords
    tasks: tuple[str, ...]
    """That any variant has a result of."""
    tasks_in_points: tuple[str, ...]
    """Of these, those whose metric lies between 0 and 1: the mean drop is over them."""
    failed_tasks: tuple[str, ...]
    """That were asked and that no variant has a result of."""
    peak_kind: str
    """The kind of bytes that stands for the peak memory."""
    variants: Mapping[str, VariantComparison]
    """By slug: the baseline first, then by method and from most to fewest bits."""
    points: tuple[Point, ...]
    """Size and loss of every variant that has both."""
    frontier: tuple[Point, ...]
    """Those that no other beats in both, smallest first."""
    ranking: tuple[Place, ...]
    """Quantized variants by divergence, the closest first."""
    caches: tuple[CacheComparison, ...]
    """Variants with a cache type of their own beside the same with the usual one."""

    @property
    def margin_points(self) -> float:
        """The margin of the verdicts."""
        return self.records.recipe.comparison.margin_points

    @property
    def quantized(self) -> list[VariantComparison]:
        """The variants of fewer than 16 bits."""
        return [variant for variant in self.variants.values() if variant.quantized]


def compare(records: ModelRecords) -> Comparison:
    """Compare all variants that have records."""
    tasks, in_points, failed = task_names(records), tasks_in_points(records), failed_everywhere(records)
    peak, other_references = peak_kind(records), against_another(records)
    variants = {
        slug: _variant(
            records,
            variant,
            compare_tasks(records, variant, tasks, failed),
            in_points,
            peak,
            other_references.get(slug),
        )
        for slug, variant in records.variants.items()
    }
    places = (pareto_point(slug, each.disk, each.divergence) for slug, each in variants.items())
    points = tuple(point for point in places if point)
    return Comparison(
        records=records,
        tasks=tasks,
        tasks_in_points=in_points,
        failed_tasks=failed,
        peak_kind=peak,
        variants=variants,
        points=points,
        frontier=pareto_frontier(points),
        ranking=ranking(_ranked(variants)),
        caches=compare_caches(records),
    )


def _variant(
    records: ModelRecords,
    variant: VariantRecords,
    tasks: Mapping[str, TaskComparison],
    in_points: tuple[str, ...],
    peak: str,
    other_reference: str | None,
) -> VariantComparison:
    status, size, speeds = status_of(variant), disk(records, variant), compare_speeds(records, variant)
    memory = {kind: runtime(records, variant, kind) for kind in KINDS}
    mean = compare_mean(records, variant, tasks, in_points)
    return VariantComparison(
        records=variant,
        engine=next((record.engine for record in variant.records.values() if record.engine), None),
        status=status,
        disk=size,
        peak=memory[peak],
        memory=memory,
        divergence=compare_divergence(records, variant, other_reference),
        nearest=compare_nearest(variant),
        tasks=tasks,
        mean=mean,
        speeds=speeds,
        first_speed=first_speed(variant, speeds),
        quoted=compare_quoted(variant, status, mean, size, memory[peak]),
    )


def _ranked(variants: Mapping[str, VariantComparison]) -> dict[str, Rankable]:
    """Quantized variants that were measured against the same reference."""
    return {
        slug: Rankable(each.divergence, each.mean.drop.points if each.mean.drop else None)
        for slug, each in variants.items()
        if each.quantized
        and each.divergence.estimate
        and not each.records.failure
        and each.divergence.other_reference is None
    }
