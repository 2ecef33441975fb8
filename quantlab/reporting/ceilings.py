"""Show the decode ceiling set by memory bandwidth beside each decode speed, and the source of the
bandwidth."""

from __future__ import annotations

from quantlab.comparison.load import ModelRecords
from quantlab.engines import sixteen_bit
from quantlab.numbers import listing, percent, significant
from quantlab.records import MeasureRecord, SpeedPoint, SpeedRecord
from quantlab.reporting.places import device_of, home
from quantlab.reporting.table import Row

_WHY = (
    (
        "The bandwidth was measured by copying; reading alone can be faster by up to half, "
        "and data that stays in a processor cache between two steps is not read from memory at all."
    ),
    (
        "The bandwidth was measured by copying; reading alone can be a little faster, and data that stays in"
        " the GPU's last-level cache between two steps is not read from its memory at all."
    ),
)
"""On a processor, on a GPU."""
_FED_BY_MEMORY = 0.5
"""From this share of the ceiling on, reading the weights is most of what a decode does."""
_NOT_RECORDED = "the record has no memory bandwidth"


def put_ceiling(row: Row, speed: SpeedRecord | None, point: SpeedPoint | None, lacking: str) -> None:
    """The ceiling's columns; `lacking` says why there is no point."""
    roof = point.roofline if point else None
    failed = speed is None or point is None or point.failure is not None
    reason = (
        lacking
        if failed or speed is None
        else speed.bandwidth_reason or (_NOT_RECORDED if speed.bandwidth is None else "not known for it")
    )
    row.put("ceiling_tokens_per_second", roof.tokens_per_second if roof else None, reason)
    row.put("ceiling_share", roof.share if roof else None)
    row.put("weight_bytes_per_step", roof.weight_bytes_per_step if roof else None)
    row.put("cache_bytes_per_step", roof.cache_bytes_per_step if roof else None)
    band = speed.bandwidth if speed else None
    row.put("bandwidth_bytes_per_second", band.measured_bytes_per_second if band else None)


def bandwidths(records: ModelRecords) -> list[str]:
    """One sentence per device: the measured bandwidth, the data sheet's beside it."""
    texts: dict[str, None] = {}
    for variant in records.variants.values():
        speed = variant.measure.speed if variant.measure else None
        if speed and speed.bandwidth:
            band = speed.bandwidth
            threads = f", {band.threads} threads" if band.threads else ""
            quoted = ""
            if band.quoted_bytes_per_second:
                source = f" ({band.quoted_source})" if band.quoted_source else ""
                quoted = (
                    f"; the data sheet says {significant(band.quoted_bytes_per_second / 1e9)} GB/s{source}"
                )
            text = (
                f"Memory bandwidth of {device_of(records, variant)}:"
                f" {significant(band.measured_bytes_per_second / 1e9)} GB/s, measured by copying"
                f" {significant(band.copied_bytes / 1e6)} MB{threads}{quoted}."
            )
            texts[text] = None
    return list(texts)


def far_below(records: ModelRecords) -> list[str]:
    """One sentence for each engine whose unquantized model decodes on a GPU far below what memory could feed:
    its ratios do not show what fewer bits save."""
    said: dict[str, None] = {}
    for variant in records.variants.values():
        measured, share = variant.measure, _share_of_one_sequence(variant.measure)
        if measured and share is not None and variant.slug == sixteen_bit(measured.engine):
            said[
                f"On {device_of(records, variant)} {variant.slug} in {measured.engine} decodes one sequence"
                f" at {percent(share)} of its ceiling: most of the time goes into something else than reading"
                " weights, such as launching each layer's kernels one by one, so this engine's ratios can lie"
                " near 1 at every width. A server that replays its steps as a CUDA graph gains more from"
                " fewer bits."
            ] = None
    return list(said)


def _share_of_one_sequence(measured: MeasureRecord | None) -> float | None:
    """The largest share of the ceiling at batch 1 on a GPU; None on a CPU, and where it is not far below."""
    speed = measured.speed if measured else None
    if speed is None or speed.bandwidth is None or speed.bandwidth.threads is not None:  # threads: a CPU
        return None
    roofs = [point.roofline for point in speed.points if point.batch == 1 and point.roofline]
    share = max((roof.share for roof in roofs if roof.share is not None), default=None)
    return share if share is not None and share < _FED_BY_MEMORY else None


def above_one(records: ModelRecords) -> str | None:
    """A sentence where a variant decodes faster than the memory could feed it, and what that can mean."""
    over: dict[bool, list[str]] = {False: [], True: []}
    for variant in records.variants.values():
        speed = variant.measure.speed if variant.measure else None
        if speed and any(p.roofline and p.roofline.share and p.roofline.share > 1 for p in speed.points):
            on_gpu = speed.bandwidth is not None and speed.bandwidth.threads is None  # no threads copied it
            over[on_gpu].append(variant.slug)
    said = (
        f"Above the ceiling on {home(records)}: {listing(slugs)}. {why}"
        for why, slugs in zip(_WHY, over.values(), strict=True)
        if slugs
    )
    return " ".join(said) or None
