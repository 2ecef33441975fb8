"""Warnings: what in the records contradicts itself or what is known of quantization, so that a reader doubts it first."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from quantlab.records import Estimate
from quantlab.reporting.drops import items_of
from quantlab.reporting.load import BASELINE, ModelRecords, VariantRecords
from quantlab.reporting.noise import distinguishable, interval, noise_floor
from quantlab.reporting.numbers import listing, significant
from quantlab.reporting.verdicts import interval_text, judge_tasks

SUSPICIOUS_POINTS = 2.0
"""An 8-bit variant loses 0 to 1.5 % in the literature; an interval wholly above this means a broken harness."""
_SCORE_TOLERANCE = 1e-6


def cautions(records: ModelRecords) -> list[str]:
    """One sentence each; none where nothing was found."""
    found = [*_devices(records)]
    for variant in records.variants.values():
        found += [*_eight_bit(records, variant), *_hidden(records, variant), *_checkpoints(variant), *_scores(variant)]
    return [*found, *_order(records)]


def _devices(records: ModelRecords) -> Iterable[str]:
    devices: dict[str, set[str]] = {}
    for variant in records.variants.values():
        for record in variant.records.values():
            if record.device and not record.failure:
                devices.setdefault(record.device, set()).add(variant.slug)
    if len(devices) > 1:
        where = "; ".join(f"{device}: {listing(sorted(slugs))}" for device, slugs in sorted(devices.items()))
        yield f"The records were made on different devices: speed and memory are compared only on the same one. {where}."


def _eight_bit(records: ModelRecords, variant: VariantRecords) -> Iterable[str]:
    if variant.variant.bits != 8:
        return
    for task, judged in judge_tasks(records, variant).items():
        if judged.ninety_five.lower > SUSPICIOUS_POINTS:
            yield (
                f"{variant.slug} loses {interval_text(judged.points, *judged.ninety_five)} points on {task}: at 8 bits an interval wholly "
                f"above {SUSPICIOUS_POINTS:g} points is not expected. Suspect the evaluation before the method."
            )


def _hidden(records: ModelRecords, variant: VariantRecords) -> Iterable[str]:
    kl, floor = _divergence(variant), noise_floor(records, variant)
    base = records.sixteen_bit(variant.divergence.engine if variant.divergence else None)
    if kl and floor.nats is not None and base is not variant and not distinguishable(kl, floor):
        yield (
            f"{variant.slug}'s KL divergence ({significant(kl.value)} nats) does not stand out from the noise floor of its engine "
            f"({significant(floor.nats)} nats): not distinguishable from the unquantized model, and no better than others below it."
        )


def _checkpoints(variant: VariantRecords) -> Iterable[str]:
    hashes = {record.checkpoint_sha256 for record in variant.records.values() if record.checkpoint_sha256 and not record.failure}
    if len(hashes) > 1:
        yield f"The records of {variant.slug} are of different checkpoints: run its stages again."


def _scores(variant: VariantRecords) -> Iterable[str]:
    if variant.tasks is None or variant.samples is None:
        return
    for task, result in variant.tasks.tasks.items():
        values = items_of(variant.samples, task, result.metric)["value"]
        if len(values) and values.between(0, 1).all() and abs(values.mean() - result.score.value) > _SCORE_TOLERANCE:
            yield f"{variant.slug}: the mean of the items of {task} is not its score ({values.mean():.4f}, {result.score.value:.4f})."


def _order(records: ModelRecords) -> Iterable[str]:
    """Fewer bits of one method that come out closer: possible, and more often a mistake."""
    methods = {v.variant.method for v in records.variants.values()}
    for method in sorted(methods - {"baseline"}):
        own = [v for v in records.variants.values() if v.variant.method == method and not v.variant.label and _divergence(v)]
        for more, fewer in pairwise(sorted(own, key=lambda v: -v.variant.bits)):
            a, b = (_bounds(_divergence(v)) for v in (more, fewer))
            if a and b and a[0] > b[1]:
                yield f"{fewer.slug} diverges less than {more.slug}, though it has fewer bits: check the settings of both."


def _bounds(estimate: Estimate | None) -> tuple[float, float] | None:
    return (interval(estimate) or (estimate.value, estimate.value)) if estimate else None


def _divergence(variant: VariantRecords) -> Estimate | None:
    return variant.divergence.kl_divergence_nats if variant.divergence and variant.slug != BASELINE else None
