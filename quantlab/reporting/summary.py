"""Tabulate the summary: one row per variant, with every figure that a choice needs.

A variant that failed keeps its row: its status says why, and no cell of it has a number.
"""

from __future__ import annotations

from functools import partial

from quantlab.comparison.compare import Comparison, VariantComparison
from quantlab.comparison.load import failure_text
from quantlab.numbers import (
    ByteUnit,
    beside,
    divergence,
    interval_text,
    percent,
    perplexity,
    ratio,
    significant,
    unit_for,
)
from quantlab.reporting.speed import PHASES
from quantlab.reporting.table import Column, Row, Table
from quantlab.reporting.unquantized import left_cell, put_left


def summary_table(comparison: Comparison) -> Table:
    """One row per variant."""
    rows = tuple(_row(comparison, variant) for variant in comparison.variants.values())
    sizes = (variant.disk.bytes for variant in comparison.variants.values())
    return Table(
        "summary", rows, _columns(comparison.tasks, unit_for(size for size in sizes if size is not None))
    )


def _row(comparison: Comparison, variant: VariantComparison) -> Row:
    status = variant.status
    row = Row(
        {"variant": variant.slug, "method": variant.method, "bits": variant.bits, "engine": variant.engine}
    )
    row.put("status", status.name)
    row.put("reason", status.reason)
    _put_size(row, comparison, variant)
    _put_divergence(row, variant)
    _put_drops(row, comparison, variant)
    _put_speed(row, variant)
    marked = [status.reason] if status.name in ("collapsed", "suspicious") and status.reason else []
    row.notes = (*marked, *variant.records.notes("quantize", "diverge"))
    row.fail(status.failed)
    return row


def _put_size(row: Row, comparison: Comparison, variant: VariantComparison) -> None:
    made, why_not_made = variant.records.quantize, variant.records.why_not("quantize")
    row.put("bits_per_weight", made.bits_per_weight if made else None, why_not_made)
    why = why_not_made if variant.quantized else "no layer is quantized"
    row.put("quantized_bits_per_weight", made.quantized_bits_per_weight if made else None, why)
    put_left(row, variant)
    row.put("disk_bytes", variant.disk.bytes, variant.disk.reason)
    row.put("disk_saving", variant.disk.share, variant.disk.reason)
    row.put("peak_memory_kind", comparison.peak_kind)
    row.put("peak_memory_bytes", variant.peak.bytes, variant.peak.reason)
    row.put("peak_memory_saving", variant.peak.share, variant.peak.reason)


def _put_divergence(row: Row, variant: VariantComparison) -> None:
    record, why = variant.records.divergence, variant.records.why_not("diverge")
    ppl, compared = record.perplexity if record else None, variant.divergence
    row.put("perplexity", ppl.value if ppl else None, why)
    row.put("perplexity_standard_error", ppl.standard_error if ppl else None)
    nats = compared.estimate
    row.put("kl_divergence_nats", nats.value if nats else None, compared.reason)
    row.put("kl_divergence_standard_error", nats.standard_error if nats else None)
    row.put("noise_floor_nats", compared.floor.nats, compared.floor.reason)
    row.put("distinguishable", compared.distinguishable, compared.not_told)


def _put_drops(row: Row, comparison: Comparison, variant: VariantComparison) -> None:
    for task in comparison.tasks:
        compared = variant.tasks[task]
        drop, judged = compared.drop, compared.judged
        row.put(f"drop_points_{task}", drop.points if drop else None, compared.outcome.reason)
        row.put(f"drop_standard_error_{task}", drop.standard_error if drop else None)
        row.put(f"drop_lower_points_{task}", judged.ninety_five.lower if judged else None)
        row.put(f"drop_upper_points_{task}", judged.ninety_five.upper if judged else None)
    mean = variant.mean
    row.put("mean_drop_points", mean.drop.points if mean.drop else None, mean.reason)
    row.put("mean_drop_standard_error", mean.drop.standard_error if mean.drop else None)
    row.put("mean_drop_lower_points", mean.judged.ninety_five.lower if mean.judged else None)
    row.put("mean_drop_upper_points", mean.judged.ninety_five.upper if mean.judged else None)
    row.put(
        "verdict",
        mean.judged.verdict if mean.judged else None,
        mean.reason or "a metric is not right or wrong",
    )


def _put_speed(row: Row, variant: VariantComparison) -> None:
    first = variant.first_speed
    point = first.point if first else None
    why = failure_text(point.failure) if point and point.failure else variant.records.why_not("measure")
    row.put("batch", point.batch if point else None)
    row.put("context_tokens", point.context_tokens if point else None)
    for phase in PHASES:
        speed = first.of(phase) if first else None
        rate, against = (speed.rate, speed.ratio) if speed and speed.rate else (None, None)
        row.put(f"{phase}_tokens_per_second", rate.value if rate else None, why)
        row.put(f"{phase}_ratio", against.value if against else None, against.reason if against else why)
        row.put(f"{phase}_ratio_kind", against.kind if against else None)
        row.put(f"{phase}_low", rate.low if rate else None)
        row.put(f"{phase}_high", rate.high if rate else None)
    roof = point.roofline if point else None
    row.put("ceiling_tokens_per_second", roof.tokens_per_second if roof else None)


def _columns(tasks: tuple[str, ...], unit: ByteUnit) -> tuple[Column, ...]:
    ends = ("drop_points", "drop_lower_points", "drop_upper_points")
    drops = [
        Column(f"drop {t} (points) [95 %]", tuple(f"{end}_{t}" for end in ends), interval_text) for t in tasks
    ]
    kl = ("kl_divergence_nats", "kl_divergence_standard_error", "distinguishable")
    rates = partial(beside, significant, ratio)
    # What decides stands first: a wide table is cut off on the right.
    return (
        Column("variant", ("variant",), str),
        Column("status", ("status",), str),
        Column(
            f"disk ({unit.name}, saved)", ("disk_bytes", "disk_saving"), partial(beside, unit.text, percent)
        ),
        Column("KL divergence (nats/token)", kl, _divergence),
        Column(
            f"{'mean drop' if len(tasks) != 1 else f'drop {tasks[0]}'} (points) [95 % interval]",
            ("mean_drop_points", "mean_drop_lower_points", "mean_drop_upper_points"),
            interval_text,
        ),
        Column("verdict", ("verdict",), str),
        Column("decode (tokens/s, ratio)", ("decode_tokens_per_second", "decode_ratio"), rates),
        Column(
            f"peak memory ({unit.name}, saved)",
            ("peak_memory_bytes", "peak_memory_saving"),
            partial(beside, unit.text, percent),
        ),
        Column("perplexity", ("perplexity",), perplexity),
        *(drops if len(drops) > 1 else []),
        Column("bits per weight", ("bits_per_weight",), significant),
        Column("bits per weight, quantized layers", ("quantized_bits_per_weight",), significant),
        Column("left in 16 bits, of all weights", ("unquantized_share", "unquantized_kinds"), left_cell),
        Column("prefill (tokens/s, ratio)", ("prefill_tokens_per_second", "prefill_ratio"), rates),
    )


def _divergence(value: float, standard_error: float | None, above: bool | None) -> str:
    return divergence(value, standard_error) + (" (noise)" if above is False else "")
