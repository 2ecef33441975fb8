"""The summary: one row per variant, with every figure that a choice needs.

A variant that failed keeps its row: its status says why, and no cell of it has a number.
"""

from __future__ import annotations

from functools import partial

from quantlab.comparison import footprint
from quantlab.comparison.drops import task_drop, task_names, variant_mean_drop
from quantlab.comparison.load import ModelRecords, VariantRecords, failure_text
from quantlab.comparison.noise import distinguishable, noise_floor
from quantlab.comparison.rates import first_point, rate, speed_ratio
from quantlab.comparison.status import status_of
from quantlab.comparison.verdicts import interval_text, judge_all, judge_tasks
from quantlab.numbers import ByteUnit, beside, divergence, percent, perplexity, ratio, significant, unit_for
from quantlab.reporting.speed import PHASES
from quantlab.reporting.table import Column, Row, Table


def summary_table(records: ModelRecords) -> Table:
    """One row per variant."""
    tasks = task_names(records)
    rows = tuple(_row(records, variant, tasks) for variant in records.variants.values())
    unit = unit_for(size for row in rows if isinstance(size := row.values["disk_bytes"], int))
    return Table("summary", rows, _columns(tasks, unit))


def _row(records: ModelRecords, variant: VariantRecords, tasks: tuple[str, ...]) -> Row:
    status = status_of(variant)
    engine = next((record.engine for record in variant.records.values() if record.engine), None)
    row = Row({"variant": variant.slug, "method": variant.variant.method, "bits": variant.variant.bits, "engine": engine})
    row.put("status", status.name)
    row.put("reason", status.reason)
    _put_size(row, records, variant)
    _put_divergence(row, records, variant)
    by_task = judge_tasks(records, variant)
    for task in tasks:
        outcome, found = task_drop(records, variant, task), by_task.get(task)
        row.put(f"drop_points_{task}", outcome.drop.points if outcome.drop else None, outcome.reason)
        row.put(f"drop_standard_error_{task}", outcome.drop.standard_error if outcome.drop else None)
        row.put(f"drop_lower_points_{task}", found.ninety_five.lower if found else None)
        row.put(f"drop_upper_points_{task}", found.ninety_five.upper if found else None)
    mean, why = variant_mean_drop(records, variant, tasks)
    row.put("mean_drop_points", mean.points if mean else None, why)
    row.put("mean_drop_standard_error", mean.standard_error if mean else None)
    judged = judge_all(records, variant) if mean else None
    row.put("mean_drop_lower_points", judged.ninety_five.lower if judged else None)
    row.put("mean_drop_upper_points", judged.ninety_five.upper if judged else None)
    row.put("verdict", judged.verdict if judged else None, why or "a metric is not right or wrong")
    _put_speed(row, records, variant)
    row.notes = (*([status.reason] if status.name == "collapsed" and status.reason else []), *variant.notes("quantize", "diverge"))
    row.fail(status.failed)
    return row


def _put_size(row: Row, records: ModelRecords, variant: VariantRecords) -> None:
    made, size = variant.quantize, footprint.disk(records, variant)
    row.put("bits_per_weight", made.bits_per_weight if made else None, variant.why_not("quantize"))
    dense = variant.variant.bits >= 16
    why = "no layer is quantized" if dense else variant.why_not("quantize")
    row.put("quantized_bits_per_weight", made.quantized_bits_per_weight if made else None, why)
    row.put("disk_bytes", size.bytes, size.reason)
    row.put("disk_saving", size.saving, size.reason)
    kind = footprint.peak_kind(records)
    peak = footprint.runtime(records, variant, kind)
    row.put("peak_memory_kind", kind)
    row.put("peak_memory_bytes", peak.bytes, peak.reason)
    row.put("peak_memory_saving", peak.saving, peak.reason)


def _put_divergence(row: Row, records: ModelRecords, variant: VariantRecords) -> None:
    found, why = variant.divergence, variant.why_not("diverge")
    ppl = found.perplexity if found else None
    kl = found.kl_divergence_nats if found else None
    row.put("perplexity", ppl.value if ppl else None, why)
    row.put("perplexity_standard_error", ppl.standard_error if ppl else None)
    row.put("kl_divergence_nats", kl.value if kl else None, why)
    row.put("kl_divergence_standard_error", kl.standard_error if kl else None)
    floor = noise_floor(records, variant)
    row.put("noise_floor_nats", floor.nats, floor.reason)
    is_floor = records.sixteen_bit(found.engine if found else None) is variant
    above = distinguishable(kl, floor) if kl and floor.nats is not None and not is_floor else None
    row.put("distinguishable", above, "it is itself the noise floor" if is_floor else floor.reason)


def _put_speed(row: Row, records: ModelRecords, variant: VariantRecords) -> None:
    point = first_point(variant.measure)
    why = failure_text(point.failure) if point and point.failure else variant.why_not("measure")
    row.put("batch", point.batch if point else None)
    row.put("context_tokens", point.context_tokens if point else None)
    for phase in PHASES:
        ours = rate(point, phase) if point else None
        ratio = speed_ratio(records, variant, point, phase) if point and ours else None
        row.put(f"{phase}_tokens_per_second", ours.value if ours else None, why)
        row.put(f"{phase}_ratio", ratio.value if ratio else None, ratio.reason if ratio else why)
        row.put(f"{phase}_ratio_kind", ratio.kind if ratio else None)
        row.put(f"{phase}_low", ours.low if ours else None)
        row.put(f"{phase}_high", ours.high if ours else None)
    roof = point.roofline if point else None
    row.put("ceiling_tokens_per_second", roof.tokens_per_second if roof else None)


def _columns(tasks: tuple[str, ...], unit: ByteUnit) -> tuple[Column, ...]:
    ends = ("drop_points", "drop_lower_points", "drop_upper_points")
    drops = [Column(f"drop {t} (points) [95 %]", tuple(f"{end}_{t}" for end in ends), interval_text) for t in tasks]
    kl = ("kl_divergence_nats", "kl_divergence_standard_error", "distinguishable")
    rates = partial(beside, significant, ratio)
    # What decides stands first: a wide table is cut off on the right.
    return (
        Column("variant", ("variant",), str),
        Column("status", ("status",), str),
        Column(f"disk ({unit.name}, saved)", ("disk_bytes", "disk_saving"), partial(beside, unit.text, percent)),
        Column("KL divergence (nats/token)", kl, _divergence),
        Column(
            f"{'mean drop' if len(tasks) != 1 else f'drop {tasks[0]}'} (points) [95 % interval]",
            ("mean_drop_points", "mean_drop_lower_points", "mean_drop_upper_points"),
            interval_text,
        ),
        Column("verdict", ("verdict",), str),
        Column("decode (tokens/s, ratio)", ("decode_tokens_per_second", "decode_ratio"), rates),
        Column(f"peak memory ({unit.name}, saved)", ("peak_memory_bytes", "peak_memory_saving"), partial(beside, unit.text, percent)),
        Column("perplexity", ("perplexity",), perplexity),
        *(drops if len(drops) > 1 else []),
        Column("bits per weight", ("bits_per_weight",), significant),
        Column("bits per weight, quantized layers", ("quantized_bits_per_weight",), significant),
        Column("prefill (tokens/s, ratio)", ("prefill_tokens_per_second", "prefill_ratio"), rates),
    )


def _divergence(value: float, standard_error: float | None, above: bool | None) -> str:
    return divergence(value, standard_error) + (" (noise)" if above is False else "")
