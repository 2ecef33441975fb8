"""Warnings: what in the records contradicts itself or what is known of quantization, so that a reader doubts it first."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from quantlab.comparison.drops import items_of
from quantlab.comparison.load import BASELINE, ModelRecords, VariantRecords, failure_text
from quantlab.comparison.noise import distinguishable, interval, noise_floor
from quantlab.comparison.references import against_another
from quantlab.comparison.verdicts import DETECTABLE, interval_text, judge_all, judge_tasks
from quantlab.names import parse_variant
from quantlab.numbers import listing, significant
from quantlab.records import Estimate

SUSPICIOUS_POINTS = 2.0
"""An 8-bit variant loses 0 to 1.5 % in the literature; an interval wholly above this means a broken harness."""
SUSPICIOUS_16_BIT_NATS = 0.01
"""Of a 16-bit variant: bfloat16 diverges from float32 by about 0.001, an F16 GGUF by 2e-6 (SmolLM2-135M, measured)."""
SUSPICIOUS_8_BIT_NATS = 0.05
"""Of an 8-bit variant: llama.cpp's Q8_0 has 0.0014 on an 8B model, here 0.004 on 135M, where LLM.int8 has 0.019."""
LARGE_NATS = 0.1
"""From here on a variant is far from the unquantized model, and answers that are truly better are not to be expected."""
_SCORE_TOLERANCE = 1e-6


def cautions(records: ModelRecords) -> list[str]:
    """One sentence each; none where nothing was found."""
    found = [*_stale(records), *_devices(records), *_references(records)]
    for variant in records.variants.values():
        found += [*_far(variant), *_eight_bit(records, variant), *_better(records, variant), *_hidden(records, variant)]
        found += [*_checkpoints(variant), *_scores(variant)]
    return [*found, *_failed_tasks(records), *_order(records), *_undecided(records)]


def _failed_tasks(records: ModelRecords) -> Iterable[str]:
    for variant in records.variants.values():
        for task, failure in variant.tasks.failed.items() if variant.tasks else ():
            yield f"{variant.slug} has no result of {task}: {failure_text(failure)}."


def _stale(records: ModelRecords) -> Iterable[str]:
    """What is shown as failed because the recipe has other settings now."""
    stages = {
        variant.slug: [stage for stage, record in variant.records.items() if record.failure and record.failure.kind == "stale"]
        for variant in records.variants.values()
    }
    old = [f"{slug} ({', '.join(found)})" for slug, found in stages.items() if found]
    if old:
        yield f"Made with other settings than the recipe has now, and left out: {listing(old)}. Run these variants again."


def _references(records: ModelRecords) -> Iterable[str]:
    for slug, why in against_another(records).items():
        yield f"{slug} is not compared with the others by divergence: {why}. Run diverge again for all of them."


def _far(variant: VariantRecords) -> Iterable[str]:
    kl = variant.divergence.kl_divergence_nats if variant.divergence and not variant.failure else None
    bits = variant.variant.bits
    most = SUSPICIOUS_16_BIT_NATS if bits >= 16 else SUSPICIOUS_8_BIT_NATS if bits == 8 else None
    if kl and most is not None and (interval(kl) or (kl.value,))[0] > most:
        yield (
            f"{variant.slug} diverges by {significant(kl.value)} nats: more than {most:g} is not expected at {bits} bits. "
            "Suspect the engine, the tokens or the checkpoint before the method."
        )


def _better(records: ModelRecords, variant: VariantRecords) -> Iterable[str]:
    """Significantly better than the unquantized model, and far from it: more likely a fault or chance than a gain."""
    kl = _divergence(variant)
    if variant.variant.bits >= 16 or not kl or kl.value < LARGE_NATS:
        return
    by_task = judge_tasks(records, variant)
    better = [task for task, j in by_task.items() if j.points < 0 and j.p_adjusted is not None and j.p_adjusted < DETECTABLE]
    pooled = judge_all(records, variant)
    if pooled and len(by_task) > 1 and pooled.ninety_five.upper < 0:
        better.append("all tasks together")
    if better:
        yield (
            f"{variant.slug} answers significantly better than {BASELINE} on {listing(better)}, though it diverges by "
            f"{significant(kl.value)} nats: suspect the evaluation, or chance, before a gain."
        )


def _undecided(records: ModelRecords) -> Iterable[str]:
    quantized = [v for v in records.variants.values() if v.variant.bits < 16]
    open_ = [v.slug for v in quantized if (judged := judge_all(records, v)) and judged.verdict == "undecided"]
    if open_:
        margin = records.recipe.comparison.margin_points
        yield (
            f"Undecided over all tasks at {margin:g} point{'s' if margin != 1 else ''}: {listing(open_)}. Their intervals hold both a loss "
            "above the margin and one below it: undecided is no sign that nothing is lost."
        )


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
    odd = against_another(records)
    methods = {v.variant.method for v in records.variants.values()}
    for method in sorted(methods - {parse_variant(BASELINE).method}):
        same = [v for v in records.variants.values() if v.variant.method == method and v.slug not in odd]
        own = [v for v in same if not v.variant.label and _divergence(v)]
        for more, fewer in pairwise(sorted(own, key=lambda v: -v.variant.bits)):
            a, b = (_bounds(_divergence(v)) for v in (more, fewer))
            if a and b and a[0] > b[1]:
                yield f"{fewer.slug} diverges less than {more.slug}, though it has fewer bits: check the settings of both."


def _bounds(estimate: Estimate | None) -> tuple[float, float] | None:
    return (interval(estimate) or (estimate.value, estimate.value)) if estimate else None


def _divergence(variant: VariantRecords) -> Estimate | None:
    return variant.divergence.kl_divergence_nats if variant.divergence and variant.slug != BASELINE else None
