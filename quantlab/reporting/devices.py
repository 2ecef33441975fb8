"""Tabulate several devices side by side: the records added by `quantlab merge`, one row per variant and
device."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from quantlab.comparison.compare import Comparison, VariantComparison
from quantlab.comparison.load import ModelRecords, failure_text
from quantlab.comparison.rates import Phase, first_token
from quantlab.comparison.speeds import PhaseSpeed, PointSpeed
from quantlab.numbers import ByteUnit, beside, divergence, percent, significant, unit_for
from quantlab.records import Failure, Record
from quantlab.reporting.places import device_of
from quantlab.reporting.speed import PHASES, measured_speeds, ratio_text
from quantlab.reporting.table import Column, Row, Table
from quantlab.workspace.imported import Import, imports
from quantlab.workspace.same_checkpoint import of_another_checkpoint


def other_devices(
    root: Path, records: ModelRecords, left_out: list[str] | None = None
) -> tuple[ModelRecords, ...]:
    """The model's records of each other device, on the same checkpoints; compared among themselves alone.

    What cannot be read is named in `left_out`, one sentence each; without such a list it raises
    QuantlabError.

    What was made here once for all devices (the checkpoint and its size) stands in for what was not brought
    along. A record of a checkpoint that is no longer this workspace's stays out: a failure that says so
    stands in its place."""
    return tuple(_records_of(root, device, records) for device in imports(root, records.model, left_out))


def _records_of(root: Path, device: Import, records: ModelRecords) -> ModelRecords:
    variants = {}
    for slug, home in records.variants.items():
        merged = device.variants.get(slug)
        if merged is None:
            continue
        measure, divergences, tasks = (_current(root, record) for record in merged)
        measure = measure.model_copy(update={"device": device.name}) if measure else None
        variants[slug] = home._replace(
            measure=measure, divergence=divergences, tasks=tasks, sensitivity=None, samples=None
        )
    return records._replace(device={"name": device.name}, variants=variants)


def _current(root: Path, record: Record | None) -> Any:
    """The record, or one of its kind without a number where the checkpoint here was made anew since it was
    merged."""
    why = of_another_checkpoint(root, record) if record else None
    if record is None or why is None:
        return record
    return type(record)(
        model=record.model,
        variant=record.variant,
        failure=Failure(kind="not_measured", reason=f"{why}, and merge again"),
    )


class OnDevice(NamedTuple):
    """A variant's records of one device, compared among that device's alone."""

    device: str
    comparison: Comparison
    variant: VariantComparison

    @property
    def engine(self) -> str | None:
        """What it was measured in."""
        measured = self.variant.records.measure
        return measured.engine if measured else None

    @property
    def first_speed(self) -> PointSpeed | None:
        """The smallest workload of a measurement that did not fail as a whole."""
        return self.variant.first_speed if measured_speeds(self.variant) else None


def across_devices(*devices: Comparison) -> list[OnDevice]:
    """One per variant and device, a variant's together. Empty where there is one device."""
    slugs = dict.fromkeys(slug for comparison in devices for slug in comparison.variants)
    pairs = [(each, each.variants[slug]) for slug in slugs for each in devices if slug in each.variants]
    measurements = [
        OnDevice(device_of(each.records, variant.records), each, variant) for each, variant in pairs
    ]
    return measurements if len({each.device for each in measurements}) > 1 else []


def across_table(*devices: Comparison) -> Table:
    """One row per variant and device. Empty where there is one device."""
    measurements = across_devices(*devices)
    sizes = [each.variant.peak.bytes for each in measurements]
    rows = tuple(map(_row, measurements))
    return Table("devices", rows, _columns(unit_for(size for size in sizes if size is not None), rows))


def _row(at: OnDevice) -> Row:
    variant, first = at.variant, at.first_speed
    measured, why = variant.records.measure, variant.records.why_not("measure")
    point = first.point if first else None
    lacking = failure_text(point.failure) if point and point.failure else why
    row = Row({"variant": variant.slug, "device": at.device}, notes=variant.records.notes("measure"))
    row.put("engine", measured.engine if measured else None, why)
    row.put("batch", point.batch if point else None, why)
    row.put("context_tokens", point.context_tokens if point else None)
    for phase in PHASES:
        _put_phase(row, phase, first.of(phase) if first else None, lacking)
    roof = point.roofline if point else None
    row.put("ceiling_tokens_per_second", roof.tokens_per_second if roof else None)
    wait = first_token(point) if point else None
    row.put("time_to_first_token_seconds", wait.value if wait else None, lacking)
    row.put("peak_memory_bytes", variant.peak.bytes, variant.peak.reason)
    row.put("peak_memory_saving", variant.peak.share, variant.peak.reason)
    row.put("peak_memory_kind", at.comparison.peak_kind)
    no_price = "no price per device hour in that recipe"
    row.put("dollars_per_million_tokens", point.dollars_per_million_tokens if point else None, no_price)
    nats = variant.divergence.estimate
    row.put("kl_divergence_nats", nats.value if nats else None, variant.divergence.reason)
    row.put("kl_divergence_standard_error", nats.standard_error if nats else None)
    row.fail(variant.status.failed)
    return row


def _put_phase(row: Row, phase: Phase, speed: PhaseSpeed | None, lacking: str) -> None:
    rate, ratio = (speed.rate, speed.ratio) if speed and speed.rate else (None, None)
    row.put(f"{phase}_tokens_per_second", rate.value if rate else None, lacking)
    row.put(f"{phase}_ratio", ratio.value if ratio else None, ratio.reason if ratio else lacking)
    row.put(f"{phase}_ratio_low", ratio.low if ratio else None)
    row.put(f"{phase}_ratio_high", ratio.high if ratio else None)
    row.put(f"{phase}_ratio_kind", ratio.kind if ratio else None)
    row.put(f"{phase}_low", rate.low if rate else None)
    row.put(f"{phase}_high", rate.high if rate else None)


def _columns(unit: ByteUnit, rows: tuple[Row, ...]) -> tuple[Column, ...]:
    def peak(value: int, saving: float | None, kind: str) -> str:
        return beside(unit.text, percent, value, saving) + (
            ", GPU" if kind == "process_vram_bytes" else ", process"
        )

    # What was measured on one device alone stands in the Divergence section.
    measured = {row.values["device"] for row in rows if row.values["kl_divergence_nats"] is not None}
    cost = Column("cost ($/million tokens decoded)", ("dollars_per_million_tokens",), significant)
    kl = Column(
        "KL divergence (nats/token)", ("kl_divergence_nats", "kl_divergence_standard_error"), divergence
    )
    return (
        Column("variant", ("variant",), str),
        Column("device", ("device",), str),
        Column("engine", ("engine",), str),
        Column("batch, context", ("batch", "context_tokens"), "{:,}, {:,}".format),
        *(Column(f"{phase} (tokens/s, ratio on that device)", _keys(phase), _speed) for phase in PHASES),
        Column("time to first token (s)", ("time_to_first_token_seconds",), significant),
        Column(
            f"peak memory ({unit.name}, saved)",
            ("peak_memory_bytes", "peak_memory_saving", "peak_memory_kind"),
            peak,
        ),
        *([cost] if any(row.values["dollars_per_million_tokens"] is not None for row in rows) else []),
        *([kl] if len(measured) > 1 else []),
    )


def _keys(phase: str) -> tuple[str, ...]:
    ends = ("ratio", "ratio_low", "ratio_high", "ratio_kind")
    return f"{phase}_tokens_per_second", *(f"{phase}_{end}" for end in ends)


def _speed(value: float, ratio: float | None, low: float | None, high: float | None, kind: str | None) -> str:
    return beside(significant, partial(ratio_text, low=low, high=high, kind=kind), value, ratio)
