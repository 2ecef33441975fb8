"""Show measurements beside the figures commonly quoted for a width: a table, and a sentence per width."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from quantlab.catalogue.expectation import expectations
from quantlab.comparison.compare import Comparison, VariantComparison
from quantlab.comparison.quoted import HOLDS, LESS, MORE, OPEN, REACHED, Quoted
from quantlab.numbers import fixed, listing
from quantlab.reporting.table import Column, Row, Table

_LOSSES = (
    (HOLDS, "holds for"),
    (MORE, "does not hold (more is lost) for"),
    (LESS, "does not hold (less is lost) for"),
    (OPEN, "cannot be decided (too few items) for"),
)


def expectations_table(comparison: Comparison) -> Table:
    """One row per quantized variant."""
    return Table("expectations", tuple(map(_row, comparison.quantized)), _COLUMNS)


def expectation_findings(comparison: Comparison) -> list[str]:
    """One sentence per width, each no stronger than its rows."""
    widths = sorted({variant.bits for variant in comparison.quantized}, reverse=True)
    sentences = (_sentence(bits, [v for v in comparison.quantized if v.bits == bits]) for bits in widths)
    return [sentence for sentence in sentences if sentence]


def _row(variant: VariantComparison) -> Row:
    quoted, mean = variant.quoted, variant.mean
    band, loss, why = quoted.band, mean.relative, mean.no_relative
    row = Row({"variant": variant.slug, "bits": variant.bits})
    row.put("quoted_loss_low_percent", band.loss_low_percent if band else None, quoted.no_band)
    row.put("quoted_loss_high_percent", band.loss_high_percent if band else None, quoted.no_band)
    row.put("quoted_for", band.quoted_for if band else None, quoted.no_band)
    row.put("loss_percent", loss.percent if loss else None, why)
    row.put("loss_lower_percent", loss.lower if loss else None, why)
    row.put("loss_upper_percent", loss.upper if loss else None, why)
    row.put("items", loss.items if loss else None, why)
    row.put("loss_verdict", quoted.loss, why if band else quoted.no_band)
    row.put("quoted_times_smaller", band.times_smaller if band else None, quoted.no_band)
    for kind, saving, verdict in (("disk", variant.disk, quoted.disk), ("peak", variant.peak, quoted.peak)):
        row.put(f"{kind}_times_smaller", saving.times_smaller, saving.reason)
        row.put(f"{kind}_verdict", verdict, saving.reason if band else quoted.no_band)
    row.fail(variant.status.failed)
    return row


def _sentence(bits: int, variants: Sequence[VariantComparison]) -> str:
    band = expectations().quoted_bands.of(bits)
    if band is None:
        return ""
    quoted = f"-{band.loss_low_percent:g} to -{band.loss_high_percent:g} % (for {band.quoted_for})"
    parts = [
        f"{words} {listing(named)}"
        for verdict, words in _LOSSES
        if (named := _named(variants, lambda quoted: quoted.loss, verdict))
    ]
    on_disk, in_memory = (
        _named(variants, lambda quoted: quoted.disk, REACHED),
        _named(variants, lambda quoted: quoted.peak, REACHED),
    )
    saved = [f"on disk: {listing(on_disk)}"] if on_disk else []
    saved += [f"in peak memory: {listing(in_memory)}"] if in_memory else []
    measured = any(variant.quoted.disk or variant.quoted.peak for variant in variants)
    size = f"the quoted {band.times_smaller:g}×"
    reach = (
        (f"{size} is reached {' and '.join(saved)}" if saved else f"no variant reaches {size}")
        if measured
        else ""
    )
    loss = f"the quoted loss of {quoted} {listing(parts)}" if parts else ""
    return f"{bits} bits: {'; '.join(part for part in (loss, reach) if part)}." if loss or reach else ""


def _named(
    variants: Sequence[VariantComparison], of: Callable[[Quoted], str | None], verdict: str
) -> list[str]:
    return [variant.slug for variant in variants if of(variant.quoted) == verdict]


def _band(low: float, high: float | None) -> str:
    return f"-{low:g} to -{high:g} %"


def _percent(value: float, lower: float | None, upper: float | None) -> str:
    # a loss is written as a change of the score, as the bands are quoted
    return f"{fixed(-value, 1)} %" + (
        f" [{fixed(-upper, 1)}, {fixed(-lower, 1)}]" if lower is not None and upper is not None else ""
    )


def _times(value: float) -> str:
    return f"{fixed(value, 2)}×"


def _judged(verdict: str, items: int | None) -> str:
    return verdict + (f" (n = {items:,})" if verdict == OPEN and items is not None else "")


_COLUMNS = (
    Column("variant", ("variant",), str),
    Column("quoted change of the score", ("quoted_loss_low_percent", "quoted_loss_high_percent"), _band),
    Column("quoted for", ("quoted_for",), str),
    Column(
        "measured [95 % interval]", ("loss_percent", "loss_lower_percent", "loss_upper_percent"), _percent
    ),
    Column("quoted change: verdict", ("loss_verdict", "items"), _judged),
    Column("quoted size", ("quoted_times_smaller",), lambda value: f"{value:g}× smaller"),
    Column("disk, measured", ("disk_times_smaller",), _times),
    Column("quoted size on disk: verdict", ("disk_verdict",), str),
    Column("peak memory, measured", ("peak_times_smaller",), _times),
    Column("quoted size in memory: verdict", ("peak_verdict",), str),
)
