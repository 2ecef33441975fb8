"""Write the report's first sentences from the numbers, each no stronger than the sample supports.

Thresholds are those named here and are printed with the sentence. A divergence counts as below one where the
upper end of its 95 % interval is."""

from __future__ import annotations

from collections.abc import Iterable

from quantlab import engines, numbers
from quantlab.comparison.compare import Comparison, VariantComparison
from quantlab.comparison.footprint import bits_above_16
from quantlab.comparison.load import BASELINE
from quantlab.comparison.noise import MINIMUM_WINDOWS, upper
from quantlab.names import parse_variant
from quantlab.numbers import listing
from quantlab.reporting.drop_findings import drop_findings
from quantlab.reporting.ranking_findings import ranking_findings
from quantlab.reporting.unquantized import left_findings

KL_THRESHOLDS_NATS = (0.01, 0.1)


def findings(comparison: Comparison) -> list[str]:
    """The sentences, in the order in which a reader chooses."""
    sentences = [
        _counts(comparison),
        _wide_baseline(comparison),
        *left_findings(comparison),
        *_suspicious(comparison),
        *_smallest(comparison),
        *ranking_findings(comparison),
        *_noise(comparison),
        _frontier(comparison),
        *drop_findings(comparison),
        _collapsed(comparison),
        _speeds(comparison),
    ]
    return [sentence for sentence in sentences if sentence]


def _counts(comparison: Comparison) -> str:
    variants = comparison.variants.values()
    records = [record for variant in variants for record in variant.records.records.values()]
    devices = sorted({record.device for record in records if record.device and not record.failure})
    where = f" on {listing(devices)}" if devices else ""
    failed = [f"{v.slug} ({v.status.failed.kind})" for v in variants if v.status.failed]
    measured = len(variants) - len(failed)
    plural, verb = ("s", "were") if measured != 1 else ("", "was")
    text = f"{measured} variant{plural} of {comparison.records.model} {verb} measured{where}."
    return text + (f" Without a result: {listing(failed)}." if failed else "")


def _wide_baseline(comparison: Comparison) -> str:
    bits = bits_above_16(comparison.records)
    if bits is None:
        return ""
    return (
        f"{BASELINE} stores {numbers.significant(bits)} bits per weight, as its source does: disk saved is"
        " against the same model at 16 bits; memory and speed ratios are against what ran."
    )


def _suspicious(comparison: Comparison) -> Iterable[str]:
    named = [
        f"{variant.slug} ({numbers.significant(nearest.nats)} nats, rounding to nearest"
        f" {numbers.significant(nearest.rounded_nats)})"
        for variant in comparison.variants.values()
        if (nearest := variant.nearest).suspicion
        and nearest.nats is not None
        and nearest.rounded_nats is not None
    ]
    if named:
        yield (
            f"**Suspicious**: {listing(named)} lost far more than plain rounding at the same bits and group"
            " size. Suspect a fault in the method's library before the width."
        )


def _noise(comparison: Comparison) -> Iterable[str]:
    told = {slug: v.divergence.distinguishable for slug, v in comparison.variants.items()}
    known = [slug for slug, above in told.items() if above is not None]
    hidden = [slug for slug in known if told[slug] is False]
    if hidden:
        yield (
            "Not distinguishable from the unquantized model's own numerical noise in the same engine:"
            f" {listing(hidden)}."
        )
    elif known:
        yield (
            f"Every quantized variant that has a noise floor ({len(known)}) diverges measurably from the"
            " unquantized model."
        )
    else:
        yield "No variant can be compared with a noise floor: none was measured in the same engine and dtype."


def _smallest(comparison: Comparison) -> Iterable[str]:
    sized = [variant for variant in comparison.quantized if variant.disk.bytes is not None]
    compared = [
        (variant, variant.divergence.estimate)
        for variant in sized
        if variant.divergence.estimate
        and not variant.divergence.other_reference
        and not variant.records.failure
    ]
    if not compared:
        return
    unit = numbers.unit_for(variant.disk.bytes or 0 for variant in sized)
    against = BASELINE if bits_above_16(comparison.records) is None else "the model at 16 bits"
    parts = []
    for threshold in KL_THRESHOLDS_NATS:
        below = [variant for variant, nats in compared if upper(nats) < threshold]
        best = min(below, key=lambda variant: variant.disk.bytes or 0, default=None)
        words = f"below {threshold:g} nats per token"
        parts.append(
            f"{_size(best, unit, against)} is the smallest {words}"
            if best
            else f"no quantized variant is {words}"
        )
    few = min(nats.n for _, nats in compared) < MINIMUM_WINDOWS
    mean_alone, interval = (
        "By the mean alone (too few windows for an interval)",
        "By the upper end of the 95 % interval",
    )
    yield f"{mean_alone if few else interval} of the KL divergence, {', and '.join(parts)}."


def _frontier(comparison: Comparison) -> str:
    front = [point.variant for point in comparison.frontier if parse_variant(point.variant).bits < 16]
    return (
        "On the Pareto frontier of disk size and mean KL divergence (no variant is both smaller and closer):"
        f" {listing(front)}."
        if front
        else ""
    )


def _collapsed(comparison: Comparison) -> str:
    named = [_with_perplexity(v) for v in comparison.variants.values() if v.status.name == "collapsed"]
    return f"Collapsed, worse than guessing on the check text: {listing(named)}." if named else ""


def _with_perplexity(variant: VariantComparison) -> str:
    record = variant.records.divergence
    perplexity = record.perplexity if record else None
    return (
        f"{variant.slug} (perplexity {numbers.perplexity(perplexity.value)})"
        if perplexity and perplexity.value
        else variant.slug
    )


def _speeds(comparison: Comparison) -> str:
    parts = []
    for engine, slug in engines.with_sixteen_bit():
        ratios = [
            variant.first_speed.decode.ratio.value
            for variant in comparison.quantized
            if variant.engine == engine
            and variant.first_speed
            and variant.first_speed.decode.ratio.value is not None
        ]
        if ratios:
            low, high = numbers.fixed(min(ratios), 2), numbers.fixed(max(ratios), 2)
            parts.append(f"{low}{f' to {high}' if high != low else ''} times {slug}'s speed in {engine}")
    return (
        f"Decoding runs at {listing(parts)}; figures of different engines are not compared." if parts else ""
    )


def _size(variant: VariantComparison, unit: numbers.ByteUnit, against: str) -> str:
    share = variant.disk.share
    saved = f", {numbers.percent(share)} less than {against}" if share is not None else ""
    return f"**{variant.slug}** ({unit.text(variant.disk.bytes or 0)} {unit.name}{saved})"
