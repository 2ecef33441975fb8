"""Compare what was measured with what is commonly quoted for the width: losses in relative per cent, savings
as factors.

A quoted band holds where the whole 95 % interval of the loss lies in it, does not where the interval lies
outside, and cannot be decided otherwise. A quoted saving holds where the measured factor reaches it within 5
%: bytes have no sampling error."""

from __future__ import annotations

from typing import NamedTuple

from quantlab.catalogue.expectation import QuotedBand, expectations
from quantlab.comparison.footprint import Saving
from quantlab.comparison.load import VariantRecords
from quantlab.comparison.status import Status
from quantlab.comparison.tasks import MeanComparison

HOLDS, MORE, LESS, OPEN = "holds", "more lost", "less lost", "cannot be decided"
REACHED, MISSED = "holds", "does not hold"
TOLERANCE = 0.05


class Quoted(NamedTuple):
    """The band that is quoted for a variant's width, and whether the variant's figures lie in it."""

    band: QuotedBand | None
    """None where none is quoted, and for a variant that failed, which shows its reason alone."""
    no_band: str
    """Why there is no band."""
    loss: str | None
    """HOLDS, MORE, LESS or OPEN; None where loss or band is missing."""
    disk: str | None
    """REACHED or MISSED; None likewise."""
    peak: str | None


def compare_quoted(
    variant: VariantRecords, status: Status, mean: MeanComparison, disk: Saving, peak: Saving
) -> Quoted:
    """Look a variant's loss and savings up in the band of its width."""
    bits = variant.variant.bits
    band, loss = None if status.failed else expectations().quoted_bands.of(bits), mean.relative
    return Quoted(
        band=band,
        no_band=f"no band is commonly quoted for {bits} bits",
        loss=loss_verdict(loss.lower, loss.upper, band) if loss and band else None,
        disk=_saving_verdict(disk, band),
        peak=_saving_verdict(peak, band),
    )


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


def _saving_verdict(saving: Saving, band: QuotedBand | None) -> str | None:
    times = saving.times_smaller
    return saving_verdict(times, band) if times is not None and band else None
