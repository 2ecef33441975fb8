"""Read the figures of the records in and below a folder, by model, variant and device.

Read from the records under each report's data/; the mean drop alone from its tables/summary.json, which the
report stage computes from every item. A variant that failed has no figures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, TypeAdapter

from quantlab.comparison.footprint import disk_bytes
from quantlab.comparison.load import VariantRecords, load_variant
from quantlab.comparison.noise import interval
from quantlab.comparison.rates import first_point, rate
from quantlab.comparison.status import status_of
from quantlab.errors import QuantlabError
from quantlab.recommend.quantity import Quantity, exact
from quantlab.records import MeasureRecord
from quantlab.workspace.results import variants_in

PATTERNS = ("reports/*/data", "runs/*/reports/*/data", "reports/examples/*/data")


class Throughput(NamedTuple):
    """The most tokens per second that were measured, whatever the batch and context."""

    decode_tokens_per_second: float
    prefill_tokens_per_second: float | None
    batch: int
    context_tokens: int


class Measured(NamedTuple):
    """One variant in one report."""

    model: str
    variant: str
    device: str | None
    """In words, as the driver names it."""
    source: str
    """The report's folder."""
    drop_points: Quantity | None
    """Mean over the report's tasks with its 95 % interval."""
    divergence_nats: Quantity | None
    decode_tokens_per_second: Quantity | None
    """At the smallest batch and context of the report."""
    parameters: int | None
    disk_bytes: int | None = None
    """Of all files of the checkpoint."""
    throughput: Throughput | None = None


def local_evidence(root: Path) -> tuple[Measured, ...]:
    """Every measured variant of the reports of a folder and of the runs in it."""
    folders = sorted({path for pattern in PATTERNS for path in root.glob(pattern)})
    return tuple(measured for data in folders for measured in _of_report(data, root))


def measured_at(evidence: Iterable[Measured], model: str, variant: str) -> list[Measured]:
    """The figures of one variant of one model; several reports may have some."""
    return [each for each in evidence if (each.model, each.variant) == (model, variant)]


class _MeanDrop(BaseModel):
    """What the report made of the items of all tasks; its bootstrap takes seconds, so it is not made anew."""

    model_config = ConfigDict(extra="ignore", strict=True)
    variant: str
    mean_drop_points: float | None = None
    mean_drop_lower_points: float | None = None
    mean_drop_upper_points: float | None = None


_MEAN_DROPS = TypeAdapter(list[_MeanDrop])


def _of_report(data: Path, root: Path) -> Iterator[Measured]:
    report = data.parent
    drops = _mean_drops(report / "tables" / "summary.json")
    for slug in _variants(data):
        try:
            records = load_variant(data / slug, slug, with_samples=False)
        except QuantlabError:  # of another version
            continue
        if not status_of(records).failed:
            yield _measured(records, drops.get(slug), report.name, report.relative_to(root).as_posix())


def _variants(data: Path) -> list[str]:
    try:
        return variants_in(data)
    except QuantlabError:  # a folder that is named like no variant
        return []


def _mean_drops(path: Path) -> dict[str, _MeanDrop]:
    """By variant; none where the report was not made, or was made by another version."""
    try:
        return {row.variant: row for row in _MEAN_DROPS.validate_json(path.read_text(encoding="utf-8"))}
    except (OSError, ValueError):
        return {}


def _measured(records: VariantRecords, drop: _MeanDrop | None, model: str, source: str) -> Measured:
    measure, made = records.measure, records.quantize
    point = first_point(measure)
    speed = rate(point, "decode") if point else None
    return Measured(
        model=model,
        variant=records.slug,
        device=measure.device if measure else None,
        source=source,
        drop_points=_drop(drop, source),
        divergence_nats=_divergence(records, source),
        decode_tokens_per_second=exact(speed.value, "measured", source) if speed else None,
        parameters=made.parameters if made else None,
        disk_bytes=disk_bytes(records),
        throughput=_throughput(measure),
    )


def _drop(mean: _MeanDrop | None, source: str) -> Quantity | None:
    if mean is None or mean.mean_drop_points is None:
        return None
    return Quantity(
        mean.mean_drop_points, "measured", mean.mean_drop_lower_points, mean.mean_drop_upper_points, source
    )


def _divergence(records: VariantRecords, source: str) -> Quantity | None:
    nats = records.divergence.kl_divergence_nats if records.divergence else None
    if nats is None:
        return None
    ends = interval(nats)
    return Quantity(
        nats.value, "measured", max(0.0, ends.low) if ends else None, ends.high if ends else None, source
    )


def _throughput(measure: MeasureRecord | None) -> Throughput | None:
    """At the point with the highest decoding rate."""
    points = measure.speed.points if measure and measure.speed else ()
    decoded = [(speed.value, point) for point in points if (speed := rate(point, "decode"))]
    if not decoded:
        return None
    best, at = max(decoded, key=lambda pair: pair[0])
    prefill = max((speed.value for _, point in decoded if (speed := rate(point, "prefill"))), default=None)
    return Throughput(best, prefill, at.batch, at.context_tokens)
