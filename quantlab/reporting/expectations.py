"""What was measured beside what is commonly quoted for the width: losses in relative per cent, savings as factors.

A quoted band holds where the whole 95 % interval of the loss lies in it, does not where the interval lies outside, and
cannot be decided otherwise. A quoted saving holds where the measured factor reaches it within 5 %: bytes have no
sampling error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from quantlab.catalogue.expectation import QuotedBand, expectations
from quantlab.comparison import footprint
from quantlab.comparison.drops import task_drop, task_names, variant_mean_drop
from quantlab.comparison.load import BASELINE, ModelRecords, VariantRecords
from quantlab.comparison.status import status_of
from quantlab.comparison.verdicts import judge_all
from quantlab.numbers import fixed, listing
from quantlab.reporting.table import Column, Row, Table

HOLDS, MORE, LESS, OPEN = "holds", "more lost", "less lost", "cannot be decided"
REACHED, MISSED = "holds", "does not hold"
TOLERANCE = 0.05


class Loss(NamedTuple):
    """A mean drop in relative per cent of the baseline's mean score, with its 95 % interval."""

    percent: float
    lower: float
    upper: float
    items: int
    """Of all tasks together."""


def loss_verdict(lower: float, upper: float, band: QuotedBand) -> str:
    """Whether a loss in relative per cent, by its interval, lies in a quoted band."""
    if lower > band.loss_high_percent:
        return MORE
    if upper < band.loss_low_percent:
        return LESS
    return HOLDS if band.loss_low_percent <= lower and upper <= band.loss_high_percent else OPEN


def saving_verdict(times: float, band: QuotedBand) -> str:
    """Whether a measured factor reaches the quoted one."""
    return REACHED if times >= band.times_smaller * (1 - TOLERANCE) else MISSED


def expectations_table(records: ModelRecords) -> Table:
    """One row per quantized variant."""
    rows = tuple(_row(records, variant) for variant in records.variants.values() if variant.variant.bits < 16)
    return Table("expectations", rows, _COLUMNS)


def expectation_findings(table: Table) -> list[str]:
    """One sentence per width, each no stronger than its rows."""
    widths = sorted({bits for row in table.rows if isinstance(bits := row.values["bits"], int)}, reverse=True)
    return [sentence for bits in widths if (sentence := _sentence(bits, [row for row in table.rows if row.values["bits"] == bits]))]


def _row(records: ModelRecords, variant: VariantRecords) -> Row:
    bits, failed = variant.variant.bits, status_of(variant).failed
    # a variant that failed shows its reason alone
    band = None if failed else expectations().quoted_bands.of(bits)
    none = f"no band is commonly quoted for {bits} bits"
    row = Row({"variant": variant.slug, "bits": bits})
    row.put("quoted_loss_low_percent", band.loss_low_percent if band else None, none)
    row.put("quoted_loss_high_percent", band.loss_high_percent if band else None, none)
    row.put("quoted_for", band.quoted_for if band else None, none)
    loss, why = _loss(records, variant)
    row.put("loss_percent", loss.percent if loss else None, why)
    row.put("loss_lower_percent", loss.lower if loss else None, why)
    row.put("loss_upper_percent", loss.upper if loss else None, why)
    row.put("items", loss.items if loss else None, why)
    row.put("loss_verdict", loss_verdict(loss.lower, loss.upper, band) if loss and band else None, why if band else none)
    row.put("quoted_times_smaller", band.times_smaller if band else None, none)
    sizes = {"disk": footprint.disk(records, variant), "peak": footprint.runtime(records, variant, footprint.peak_kind(records))}
    for kind, size in sizes.items():
        times = 1 / (1 - size.saving) if size.saving is not None else None
        row.put(f"{kind}_times_smaller", times, size.reason)
        row.put(f"{kind}_verdict", saving_verdict(times, band) if times is not None and band else None, size.reason if band else none)
    row.fail(failed)
    return row


def _loss(records: ModelRecords, variant: VariantRecords) -> tuple[Loss | None, str | None]:
    tasks = task_names(records)
    mean, why = variant_mean_drop(records, variant, tasks)
    if mean is None:
        return None, why
    judged = judge_all(records, variant)
    baseline = records.variants[BASELINE].tasks
    if judged is None or baseline is None:
        return None, "the metric is not right or wrong, so that the drop has no interval here"
    score = sum(baseline.tasks[task].score.value for task in tasks) / len(tasks)
    if score <= 0:
        return None, f"{BASELINE} has no item right, so that nothing is relative to it"
    items = sum(drop.n for task in tasks if (drop := task_drop(records, variant, task).drop))
    return Loss(judged.points / score, judged.ninety_five.lower / score, judged.ninety_five.upper / score, items), None


def _sentence(bits: int, rows: Sequence[Row]) -> str:
    band = expectations().quoted_bands.of(bits)
    if band is None:
        return ""
    quoted = f"-{band.loss_low_percent:g} to -{band.loss_high_percent:g} % (for {band.quoted_for})"
    parts = [
        f"{words} {listing(named)}"
        for verdict, words in (
            (HOLDS, "holds for"),
            (MORE, "does not hold, more is lost, for"),
            (LESS, "does not hold, less is lost, for"),
            (OPEN, "cannot be decided with so many items for"),
        )
        if (named := _named(rows, "loss_verdict", verdict))
    ]
    saved = [
        f"{where}: {listing(named)}"
        for where, key in (("on disk", "disk_verdict"), ("in peak memory", "peak_verdict"))
        if (named := _named(rows, key, REACHED))
    ]
    measured = any(row.values.get("disk_verdict") or row.values.get("peak_verdict") for row in rows)
    reach = f"the quoted {band.times_smaller:g}× is reached {' and '.join(saved) if saved else 'by none'}" if measured else ""
    loss = f"the quoted loss of {quoted} {listing(parts)}" if parts else ""
    return f"{bits} bits: {'; '.join(part for part in (loss, reach) if part)}." if loss or reach else ""


def _named(rows: Sequence[Row], key: str, verdict: str) -> list[str]:
    return [str(row.values["variant"]) for row in rows if row.values.get(key) == verdict]


def _band(low: float, high: float | None) -> str:
    return f"-{low:g} to -{high:g} %"


def _percent(value: float, lower: float | None, upper: float | None) -> str:
    # a loss is written as a change of the score, as the bands are quoted
    return f"{fixed(-value, 1)} %" + (f" [{fixed(-upper, 1)}, {fixed(-lower, 1)}]" if lower is not None and upper is not None else "")


def _times(value: float) -> str:
    return f"{fixed(value, 2)}×"


def _judged(verdict: str, items: int | None) -> str:
    return verdict + (f" (n = {items:,})" if verdict == OPEN and items is not None else "")


_COLUMNS = (
    Column("variant", ("variant",), str),
    Column("quoted change of the score", ("quoted_loss_low_percent", "quoted_loss_high_percent"), _band),
    Column("quoted for", ("quoted_for",), str),
    Column("measured [95 % interval]", ("loss_percent", "loss_lower_percent", "loss_upper_percent"), _percent),
    Column("the band", ("loss_verdict", "items"), _judged),
    Column("quoted size", ("quoted_times_smaller",), lambda value: f"{value:g}× smaller"),
    Column("disk, measured", ("disk_times_smaller",), _times),
    Column("on disk", ("disk_verdict",), str),
    Column("peak memory, measured", ("peak_times_smaller",), _times),
    Column("in memory", ("peak_verdict",), str),
)
