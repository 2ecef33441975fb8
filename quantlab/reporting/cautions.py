"""Warn of records that contradict each other, or what is known of quantization."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from quantlab.comparison.compare import Comparison, VariantComparison
from quantlab.comparison.drops import items_of
from quantlab.comparison.load import BASELINE, VariantRecords, failure_text
from quantlab.comparison.verdicts import DETECTABLE
from quantlab.names import parse_variant
from quantlab.numbers import interval_text, listing, significant
from quantlab.records import Estimate

SUSPICIOUS_POINTS = 2.0
"""An 8-bit variant loses 0 to 1.5 % in the literature; an interval wholly above this means a broken
harness."""
SUSPICIOUS_16_BIT_NATS = 0.01
"""Of a 16-bit variant: bfloat16 diverges from float32 by about 0.001, an F16 GGUF by 2e-6 (SmolLM2-135M,
measured)."""
SUSPICIOUS_8_BIT_NATS = 0.05
"""Of an 8-bit variant: llama.cpp's Q8_0 has 0.0014 on an 8B model, here 0.004 on 135M, where LLM.int8 has
0.019."""
LARGE_NATS = 0.1
"""From here on a variant is far from the unquantized model, and answers that are truly better are not to be
expected."""
_SCORE_TOLERANCE = 1e-6


def cautions(comparison: Comparison) -> list[str]:
    """One sentence each; none where nothing was found."""
    warnings = [*_stale(comparison), *_devices(comparison), *_references(comparison)]
    for variant in comparison.variants.values():
        warnings += [*_far(variant), *_eight_bit(variant), *_better(variant), *_hidden(variant)]
        warnings += [*_checkpoints(variant.records), *_scores(variant.records)]
    return [*warnings, *_failed_tasks(comparison), *_order(comparison), *_undecided(comparison)]


def _failed_tasks(comparison: Comparison) -> Iterable[str]:
    for variant in comparison.variants.values():
        record = variant.records.tasks
        for task, failure in record.failed.items() if record else ():
            yield f"{variant.slug} has no result of {task}: {failure_text(failure)}."


def _stale(comparison: Comparison) -> Iterable[str]:
    """What is shown as failed because the recipe has other settings now."""
    stages = {
        slug: [
            stage
            for stage, record in variant.records.records.items()
            if record.failure and record.failure.kind == "stale"
        ]
        for slug, variant in comparison.variants.items()
    }
    old = [f"{slug} ({', '.join(variants)})" for slug, variants in stages.items() if variants]
    if old:
        yield (
            f"Left out, because they were made with other settings than the recipe has now: {listing(old)}."
            " Run these variants again."
        )


def _references(comparison: Comparison) -> Iterable[str]:
    for slug, variant in comparison.variants.items():
        if why := variant.divergence.other_reference:
            yield (
                f"{slug} is not compared with the others by divergence: {why}. Run diverge again for all of"
                " them."
            )


def _far(variant: VariantComparison) -> Iterable[str]:
    nats, bounds = variant.divergence.estimate, variant.divergence.bounds
    most = None if variant.quantized else SUSPICIOUS_16_BIT_NATS
    most = SUSPICIOUS_8_BIT_NATS if variant.bits == 8 else most
    if nats and bounds and most is not None and bounds.low > most and not variant.records.failure:
        yield (
            f"{variant.slug} diverges by {significant(nats.value)} nats: more than {most:g} is not expected"
            f" at {variant.bits} bits. Suspect the engine, the tokens or the checkpoint before the method."
        )


def _better(variant: VariantComparison) -> Iterable[str]:
    """Significantly better than the unquantized model, and far from it: more likely a fault or chance than a
    gain."""
    nats = _divergence(variant)
    if not variant.quantized or not nats or nats.value < LARGE_NATS:
        return
    judged = {task: each.judged for task, each in variant.tasks.items() if each.judged}
    better = [
        t
        for t, j in judged.items()
        if j.points < 0 and j.p_adjusted is not None and j.p_adjusted < DETECTABLE
    ]
    pooled = variant.mean.judged
    if pooled and len(judged) > 1 and pooled.ninety_five.upper < 0:
        better.append("all tasks together")
    if better:
        yield (
            f"{variant.slug} answers significantly better than {BASELINE} on {listing(better)}, though it"
            f" diverges by {significant(nats.value)} nats: suspect the evaluation or chance rather than a"
            " real gain."
        )


def _undecided(comparison: Comparison) -> Iterable[str]:
    judged = [(variant.slug, variant.mean.judged) for variant in comparison.quantized]
    undecided = [slug for slug, each in judged if each and each.verdict == "undecided"]
    if undecided:
        margin = comparison.margin_points
        yield (
            f"Undecided over all tasks at {margin:g} point{'s' if margin != 1 else ''}: {listing(undecided)}."
            " Their intervals contain losses above and below the margin: undecided does not mean that"
            " nothing is lost."
        )


def _devices(comparison: Comparison) -> Iterable[str]:
    devices: dict[str, set[str]] = {}
    for slug, variant in comparison.variants.items():
        for record in variant.records.records.values():
            if record.device and not record.failure:
                devices.setdefault(record.device, set()).add(slug)
    if len(devices) > 1:
        where = "; ".join(f"{device}: {listing(sorted(slugs))}" for device, slugs in sorted(devices.items()))
        yield (
            "The records were made on different devices: speed and memory are compared only on the same one."
            f" {where}."
        )


def _eight_bit(variant: VariantComparison) -> Iterable[str]:
    if variant.bits != 8:
        return
    for task, each in variant.tasks.items():
        if each.judged and each.judged.ninety_five.lower > SUSPICIOUS_POINTS:
            yield (
                f"{variant.slug} loses {interval_text(each.judged.points, *each.judged.ninety_five)} points"
                f" on {task}: at 8 bits an interval wholly above {SUSPICIOUS_POINTS:g} points is not"
                " expected. Suspect the evaluation before the method."
            )


def _hidden(variant: VariantComparison) -> Iterable[str]:
    nats, floor = _divergence(variant), variant.divergence.floor
    if nats and floor.nats is not None and variant.divergence.distinguishable is False:
        yield (
            f"{variant.slug}'s KL divergence ({significant(nats.value)} nats) is not above the noise floor of"
            f" its engine ({significant(floor.nats)} nats): it cannot be told from the unquantized"
            " model, and variants below the floor cannot be ranked."
        )


def _checkpoints(variant: VariantRecords) -> Iterable[str]:
    hashes = {
        record.checkpoint_sha256
        for record in variant.records.values()
        if record.checkpoint_sha256 and not record.failure
    }
    if len(hashes) > 1:
        yield f"The records of {variant.slug} are of different checkpoints: run its stages again."


def _scores(variant: VariantRecords) -> Iterable[str]:
    if variant.tasks is None or variant.samples is None:
        return
    for task, result in variant.tasks.tasks.items():
        values = items_of(variant.samples, task, result.metric)["value"]
        if (
            len(values)
            and values.between(0, 1).all()
            and abs(values.mean() - result.score.value) > _SCORE_TOLERANCE
        ):
            yield (
                f"{variant.slug}: the mean of the items of {task} is not its score ({values.mean():.4f},"
                f" {result.score.value:.4f})."
            )


def _order(comparison: Comparison) -> Iterable[str]:
    """Fewer bits of one method that come out closer: possible, and more often a mistake."""
    methods = {variant.method for variant in comparison.variants.values()}
    for method in sorted(methods - {parse_variant(BASELINE).method}):
        same = [
            v for v in comparison.variants.values() if v.method == method and not v.divergence.other_reference
        ]
        own = [variant for variant in same if not variant.records.variant.label and _divergence(variant)]
        for more, fewer in pairwise(sorted(own, key=lambda variant: -variant.bits)):
            above, below = more.divergence.bounds, fewer.divergence.bounds
            if above and below and above.low > below.high:
                yield (
                    f"{fewer.slug} diverges less than {more.slug}, though it has fewer bits: check the"
                    " settings of both."
                )


def _divergence(variant: VariantComparison) -> Estimate | None:
    return None if variant.is_baseline else variant.divergence.estimate
