"""The summary: one row per variant, with every figure that a choice needs.

A variant that failed keeps its row: its status says why, and no cell of it has a number.
"""

from __future__ import annotations

from functools import partial

from quantlab.reporting import footprint
from quantlab.reporting.drops import task_drop, task_names, variant_mean_drop
from quantlab.reporting.load import ModelRecords, VariantRecords, failure_text, kind_words
from quantlab.reporting.noise import distinguishable, noise_floor
from quantlab.reporting.numbers import ByteUnit, divergence, perplexity, points, ratio, significant, unit_for
from quantlab.reporting.rates import comparable, first_point, rate, same_point
from quantlab.reporting.table import Column, Row, Table

_STATUS_CHARACTERS = 44
"""A longer status becomes a footnote, so that one failure does not widen the table for all."""


def summary_table(records: ModelRecords) -> Table:
    """One row per variant."""
    tasks = task_names(records)
    rows = tuple(_row(records, variant, tasks) for variant in records.variants.values())
    unit = unit_for(size for row in rows if isinstance(size := row.values["disk_bytes"], int))
    return Table("summary", rows, _columns(tasks, unit))


def status_of(variant: VariantRecords) -> tuple[str, str | None]:
    """`measured`, `collapsed`, `partly measured` or `failed`, and why it is not the first."""
    if variant.failure:
        return "failed", failure_text(variant.failure)
    failed = [f"{stage}: {failure_text(record.failure)}" for stage, record in variant.records.items() if record.failure]
    if failed:
        return ("failed" if len(failed) == len(variant.records) else "partly measured"), "; ".join(failed)
    if variant.quantize and variant.quantize.collapsed:
        return "collapsed", "its perplexity on the check text is above the vocabulary's size: worse than guessing"
    lacking = [stage for stage in ("measure", "divergence", "tasks") if stage not in variant.records]
    return ("partly measured", f"no record of {', '.join(lacking)}") if lacking else ("measured", None)


def _row(records: ModelRecords, variant: VariantRecords, tasks: tuple[str, ...]) -> Row:
    status, reason = status_of(variant)
    engine = next((record.engine for record in variant.records.values() if record.engine), None)
    values = {"variant": variant.slug, "method": variant.variant.method, "bits": variant.variant.bits, "engine": engine}
    row = Row({**values, "status": status, "reason": reason}, notes=_notes(variant))
    _put_size(row, records, variant)
    _put_divergence(row, records, variant)
    for task in tasks:
        outcome = task_drop(records, variant, task)
        row.put(f"drop_points_{task}", outcome.drop.points if outcome.drop else None, outcome.reason)
        row.put(f"drop_standard_error_{task}", outcome.drop.standard_error if outcome.drop else None)
    mean, why = variant_mean_drop(records, variant, tasks)
    row.put("mean_drop_points", mean.points if mean else None, why)
    row.put("mean_drop_standard_error", mean.standard_error if mean else None)
    _put_speed(row, records, variant)
    if variant.failure:
        row.missing = dict.fromkeys(row.missing, failure_text(variant.failure))
    return row


def _notes(variant: VariantRecords) -> tuple[str, ...]:
    return tuple(dict.fromkeys(note for stage in ("quantize", "divergence") for note in _of(variant, stage)))


def _of(variant: VariantRecords, stage: str) -> tuple[str, ...]:
    record = {str(name): record for name, record in variant.records.items()}.get(stage)
    return record.notes if record else ()


def _put_size(row: Row, records: ModelRecords, variant: VariantRecords) -> None:
    made, size = variant.quantize, footprint.disk(records, variant)
    row.put("bits_per_weight", made.bits_per_weight if made else None, variant.why_not("quantize"))
    row.put("quantized_bits_per_weight", made.quantized_bits_per_weight if made else None)
    row.put("disk_bytes", size.bytes, size.reason)
    row.put("disk_saving", size.saving, size.reason)
    kind = footprint.peak_kind(records)
    peak = footprint.runtime(records, variant, kind)
    row.put("peak_memory_kind", kind)
    row.put("peak_memory_bytes", peak.bytes, peak.reason)
    row.put("peak_memory_saving", peak.saving, peak.reason)


def _put_divergence(row: Row, records: ModelRecords, variant: VariantRecords) -> None:
    found, why = variant.divergence, variant.why_not("divergence")
    ppl = found.perplexity if found else None
    kl = found.kl_divergence_nats if found else None
    row.put("perplexity", ppl.value if ppl else None, why)
    row.put("perplexity_standard_error", ppl.standard_error if ppl else None)
    row.put("kl_divergence_nats", kl.value if kl else None, why)
    row.put("kl_divergence_standard_error", kl.standard_error if kl else None)
    floor = noise_floor(records, variant)
    row.put("noise_floor_nats", floor.nats, floor.reason)
    is_floor = records.sixteen_bit(found.engine if found else None) is variant
    above = distinguishable(kl, floor.nats) if kl and floor.nats is not None and not is_floor else None
    row.put("distinguishable", above, "it is itself the noise floor" if is_floor else floor.reason)


def _put_speed(row: Row, records: ModelRecords, variant: VariantRecords) -> None:
    point = first_point(variant.measure)
    why = failure_text(point.failure) if point and point.failure else variant.why_not("measure")
    base = comparable(records, variant)
    theirs = same_point(base.record, point) if base.record and point else None
    row.put("batch", point.batch if point else None)
    row.put("context_tokens", point.context_tokens if point else None)
    for phase in ("decode", "prefill"):
        key = f"{phase}_tokens_per_second"
        ours, other = (rate(getattr(p, key)) if p else None for p in (point, theirs))
        row.put(key, ours.median if ours else None, why)
        reason = why if ours is None else base.reason or "not compared: the 16-bit variant did not run this point"
        row.put(f"{phase}_ratio", ours.median / other.median if ours and other else None, reason)


def _columns(tasks: tuple[str, ...], unit: ByteUnit) -> tuple[Column, ...]:
    drops = [Column(f"drop {t} (points)", (f"drop_points_{t}", f"drop_standard_error_{t}"), points) for t in tasks]
    return (
        Column("variant", ("variant",), str),
        Column("status", ("status", "reason"), _status),
        Column("bits per weight: model", ("bits_per_weight",), partial(significant, digits=3)),
        Column("quantized layers", ("quantized_bits_per_weight",), partial(significant, digits=3)),
        Column(f"disk ({unit.name})", ("disk_bytes",), unit.text),
        Column("disk saved (%)", ("disk_saving",), saved),
        Column("peak memory saved (%)", ("peak_memory_saving",), saved),
        Column("perplexity", ("perplexity",), perplexity),
        Column("KL divergence (nats/token)", ("kl_divergence_nats", "kl_divergence_standard_error"), divergence),
        *drops,
        Column("mean drop (points)", ("mean_drop_points", "mean_drop_standard_error"), points),
        Column("decode (tokens/s)", ("decode_tokens_per_second",), significant),
        Column("ratio", ("decode_ratio",), ratio),
        Column("prefill (tokens/s)", ("prefill_tokens_per_second",), significant),
        Column("ratio", ("prefill_ratio",), ratio),
    )


def saved(share: float) -> str:
    """A saving in per cent, without the sign that the header has."""
    return f"{100 * share + 0.0:.1f}".replace("-0.0", "0.0") if abs(share) < 0.0005 else f"{100 * share:.1f}"


def _status(status: str, reason: str | None) -> str:
    return status if not reason else status
