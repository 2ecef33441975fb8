"""Define how many calibration tokens each expert of a mixture saw."""

from __future__ import annotations

from quantlab.frozen import Frozen

FEW = 0.005
"""Of the calibration tokens: with fewer an expert is hardly calibrated."""


class ExpertTokens(Frozen):
    """Calibration tokens that were sent to each expert, by block."""

    calibration_tokens: int
    """All of them; a token is sent to several experts of a block."""
    by_block: dict[int, tuple[int, ...]]
    """A block's number, and the tokens of its experts in their order."""
    few_are: str = ""
    """What the library does with experts that saw few tokens or none: a clause about `them`."""
    rounded: int | None = None
    """Experts that the library itself says it rounded to nearest for want of tokens; None where it says
    nothing."""

    @property
    def experts(self) -> int:
        """Of all blocks."""
        return sum(map(len, self.by_block.values()))

    @property
    def few(self) -> int:
        """Experts that saw fewer than 0.5 % of the tokens."""
        limit = FEW * self.calibration_tokens
        return sum(tokens < limit for block in self.by_block.values() for tokens in block)

    @property
    def note(self) -> tuple[str, ...]:
        """A sentence on experts that saw too few tokens to be calibrated; none where all saw enough."""
        if not self.few:
            return ()
        said = "" if self.rounded is None else f" ({self.rounded} by its own log)"
        return (
            f"{self.few} of {self.experts} experts saw fewer than 0.5 % of the calibration tokens"
            f" ({self.none} saw none): {self.few_are}{said}. Use more calibration text.",
        )

    @property
    def none(self) -> int:
        """Experts that saw no token."""
        return sum(not tokens for block in self.by_block.values() for tokens in block)
