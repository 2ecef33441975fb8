"""Compare a variant's divergence with the noise floor of its engine."""

from __future__ import annotations

from typing import NamedTuple

from quantlab.comparison.load import ModelRecords, VariantRecords
from quantlab.comparison.noise import Floor, MeanInterval, distinguishable, interval, noise_floor
from quantlab.records import Estimate


class DivergenceComparison(NamedTuple):
    """The mean KL divergence of a variant from the reference, in nats per token."""

    estimate: Estimate | None
    reason: str | None
    """Why there is no estimate."""
    interval: MeanInterval | None
    """Its 95 % interval; None where the windows are too few for one."""
    floor: Floor
    distinguishable: bool | None
    """Whether it stands out from the noise floor; None where it is itself the floor or none is known."""
    not_told: str | None
    """Why `distinguishable` is None."""
    other_reference: str | None
    """Why it is not compared with the other variants' divergences; None where it is."""

    @property
    def bounds(self) -> MeanInterval | None:
        """The interval, or the estimate at both ends where there is none."""
        if self.estimate is None:
            return None
        return self.interval or MeanInterval(self.estimate.value, self.estimate.value)


def compare_divergence(
    records: ModelRecords, variant: VariantRecords, other_reference: str | None
) -> DivergenceComparison:
    """Set a variant's divergence beside its noise floor."""
    record = variant.divergence
    estimate, floor = record.kl_divergence_nats if record else None, noise_floor(records, variant)
    is_floor = records.sixteen_bit(record.engine if record else None) is variant
    known = estimate is not None and floor.nats is not None and not is_floor
    return DivergenceComparison(
        estimate=estimate,
        reason=None if estimate else variant.why_not("diverge"),
        interval=interval(estimate) if estimate else None,
        floor=floor,
        distinguishable=distinguishable(estimate, floor) if estimate and known else None,
        not_told=None if known else "this variant is the noise floor" if is_floor else floor.reason,
        other_reference=other_reference,
    )
