"""Compute the roofline of decoding: bytes read by one step, and the tokens per second that bandwidth allows.

tokens/s <= batch / max(bytes / bandwidth, seconds of arithmetic). Of a mixture of experts only the touched
experts are read: experts * (1 - (1 - k/E)^batch) with uniform routing. Measuring and planning both ask here.
Pure functions."""

from __future__ import annotations

from typing import NamedTuple

from quantlab.records import Roofline


class WeightReads(NamedTuple):
    """Stored bytes of the weights that a decode reads, in two kinds."""

    always_bytes: int
    """Read in every step: all but the input embedding (a row per token is nothing) and the experts; a head
    that is tied to the embedding is read whole."""
    expert_bytes: int = 0
    """All routed experts together."""
    experts: int = 0
    experts_per_token: int = 0

    def per_step(self, batch: int) -> int | None:
        """Bytes of one step with `batch` sequences, whose tokens choose their experts independently.

        None where there are experts, but not how many of how many a token uses.
        """
        if not self.expert_bytes:
            return self.always_bytes
        if not self.experts or not self.experts_per_token:
            return None
        return self.always_bytes + round(
            self.expert_bytes * touched_share(self.experts, self.experts_per_token, batch)
        )


def touched_share(experts: int, per_token: int, batch: int) -> float:
    """Share of the routed experts that some token of a batch passes, with uniform routing."""
    return 1 - (1 - per_token / experts) ** batch


def tokens_per_second(
    batch: int, bytes_per_step: float, bytes_per_second: float, arithmetic_seconds: float = 0.0
) -> float:
    """Most tokens per second over the batch; 0 where a step is nothing."""
    seconds = max(bytes_per_step / bytes_per_second, arithmetic_seconds)
    return batch / seconds if seconds else 0.0


def measured_roofline(
    batch: int, weights: int, cache: int, bytes_per_second: float, reached: float | None
) -> Roofline:
    """The ceiling of a measured workload, and the share of it that was reached."""
    limit = tokens_per_second(batch, weights + cache, bytes_per_second)
    share = None if reached is None else reached / limit
    return Roofline(
        weight_bytes_per_step=weights, cache_bytes_per_step=cache, tokens_per_second=limit, share=share
    )
