"""Define what a checkpoint left unquantized: weights stored in 16 or 32 bits, by kind."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from quantlab.frozen import Frozen

WeightKind = Literal["experts", "linears", "towers", "router", "embedding", "head", "norms", "other"]
"""`experts` are the routed ones; shared experts are `linears`, as are the projections of attention and MLP;
`towers` are of images and sound; `norms` are norms, biases and other vectors."""
PROMISED: tuple[WeightKind, ...] = ("experts", "linears", "towers")
"""Kinds that the bits in a variant's name are taken to speak of. Embedding, head, routers and norms are left
alone by most methods, at every size of model."""


class Unquantized(Frozen):
    """Weights of a checkpoint by kind, counted from its own tensors: all of them, and those left in 16 or 32
    bits."""

    weights: int = Field(gt=0)
    """Of the whole model: the unquantized model's, tied tensors once."""
    by_kind: dict[str, int] = {}
    """Left in 16 or 32 bits, by WeightKind; a kind without any is not listed."""

    @property
    def share(self) -> float:
        """Of all weights."""
        return sum(self.by_kind.values()) / self.weights

    @property
    def promised(self) -> int:
        """Weights left of the kinds that the variant's name speaks of."""
        return sum(self.by_kind.get(kind, 0) for kind in PROMISED)

    @property
    def share_of_promised(self) -> float | None:
        """The same, of all weights but those left of the other kinds; None where that is none."""
        others = sum(number for kind, number in self.by_kind.items() if kind not in PROMISED)
        of_these = self.weights - others
        return self.promised / of_these if of_these > 0 else None
