"""Compare a variant's divergence with that of plain rounding to nearest at the same bits and group size.

Methods exist to lose less than that. What loses far more is rarely the method's own limit, but a scale folded
into the wrong layer, experts in the wrong order, or a kernel that reads the codes differently."""

from __future__ import annotations

from typing import NamedTuple

from quantlab.comparison.load import VariantRecords
from quantlab.numbers import significant

SUSPICIOUS_TIMES = 1.5
"""Times the loss of rounding from which a variant is suspicious. docs/suspicious.md has the measurements:
right methods read 0.04 to 1.01 there, the faults that were found 1.84 and above."""
NOISE_NATS = 0.01
"""On top: kernels, activations in 8 bits and bfloat16 differ by less than that."""
MOST_BITS = 4
"""At more bits both lose so little that the engine's own noise decides."""
_SMALLEST_NATS = 1e-9
"""What nothing rounded can be divided by."""


class NearestComparison(NamedTuple):
    """A variant beside rounding to nearest on the same windows, each None with the reason."""

    nats: float | None
    """The variant's mean divergence on these windows."""
    rounded_nats: float | None
    """Rounding's, on the same."""
    times: float | None
    """The first / the second."""
    suspicion: str | None
    """Why the variant is suspicious, with both figures; None where it is not."""
    reason: str | None
    """Why there is no figure of rounding."""


def compare_nearest(variant: VariantRecords) -> NearestComparison:
    """Compare a variant with the figure in its divergence record."""
    record = variant.divergence
    if record is None or record.failure or variant.failure:
        return NearestComparison(None, None, None, None, variant.why_not("diverge"))
    if record.round_to_nearest is None:
        why = record.round_to_nearest_reason or "the divergence record has no figure of it"
        high = variant.variant.bits > MOST_BITS
        return NearestComparison(
            None, None, None, None, f"compared at {MOST_BITS} bits and fewer" if high else why
        )
    rounded = record.round_to_nearest
    nats, rounded_nats = rounded.variant_kl_divergence_nats, rounded.kl_divergence_nats
    group = f"groups of {rounded.group_size}" if rounded.group_size > 0 else "one scale per row"
    suspicion = (
        f"suspicious: it diverges by {significant(nats)} nats, plain rounding to nearest at {rounded.bits}"
        f" bits with {group} by {significant(rounded_nats)} nats on the same windows"
    )
    return NearestComparison(
        nats,
        rounded_nats,
        nats / rounded_nats if rounded_nats > _SMALLEST_NATS else None,
        suspicion if nats > SUSPICIOUS_TIMES * rounded_nats + NOISE_NATS else None,
        None,
    )
