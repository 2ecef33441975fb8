"""Compute the noise floor: the divergence of the unquantized model from the reference, in the same engine and
dtype."""

from __future__ import annotations

from typing import NamedTuple

from scipy.stats import t as student

from quantlab import engines
from quantlab.comparison.load import ModelRecords, VariantRecords
from quantlab.records import Estimate

MINIMUM_WINDOWS = 30
"""Below so many independent units no interval is given."""


class Floor(NamedTuple):
    """A noise floor in nats per token, or the reason why there is none."""

    nats: float | None
    upper_nats: float | None
    """The upper end of its 95 % interval, or the floor itself where there is none."""
    reason: str | None


class MeanInterval(NamedTuple):
    """A two-sided interval of a mean."""

    low: float
    high: float


def noise_floor(records: ModelRecords, variant: VariantRecords) -> Floor:
    """The floor under a variant's divergence."""
    own = variant.divergence
    if own is None or own.kl_divergence_nats is None:
        return Floor(None, None, variant.why_not("diverge"))
    base = records.sixteen_bit(own.engine)
    slug = engines.sixteen_bit(own.engine) or "a 16-bit variant"
    unquantized = base.divergence if base else None
    if unquantized is None or unquantized.kl_divergence_nats is None or unquantized.engine != own.engine:
        return Floor(
            None,
            None,
            f"the noise floor of engine {own.engine} is not measured: it needs the divergence of {slug}",
        )
    if _base(unquantized.dtype) != _base(own.dtype):
        return Floor(None, None, f"no noise floor in {own.dtype}: {slug} ran in {unquantized.dtype}")
    divergence = unquantized.kl_divergence_nats
    return Floor(max(0.0, divergence.value), max(0.0, upper(divergence)), None)


def _base(dtype: str | None) -> str:
    """The dtype itself: what an engine adds after it (activations, cache) belongs to the way it quantizes."""
    return (dtype or "").replace(",", " ").split(" ")[0]


def interval(estimate: Estimate, confidence: float = 0.95) -> MeanInterval | None:
    """Student's t interval of a mean over n independent units; None below MINIMUM_WINDOWS or without a
    standard error."""
    if estimate.standard_error is None or estimate.n < MINIMUM_WINDOWS:
        return None
    reach = float(student.ppf((1 + confidence) / 2, estimate.n - 1)) * estimate.standard_error
    return MeanInterval(estimate.value - reach, estimate.value + reach)


def upper(estimate: Estimate) -> float:
    """The upper end of the interval, or the value where there is none."""
    bounds = interval(estimate)
    return bounds.high if bounds else estimate.value


def distinguishable(estimate: Estimate, floor: Floor) -> bool:
    """Whether a divergence is above a floor that is known: its interval wholly above the floor's, or the
    means where there are none.

    The two are not independent, so intervals that do not meet claim less than a paired comparison could.
    """
    bounds = interval(estimate)
    return (bounds.low if bounds else estimate.value) > (floor.upper_nats or 0.0)
