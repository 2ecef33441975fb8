"""Define how many calibration tokens each expert of a mixture saw."""

from __future__ import annotations

from quantlab.frozen import Frozen

FEW = 0.005
"""Of the calibration tokens: below it GPTQModel rounds an expert to nearest."""


class ExpertTokens(Frozen):
    """Calibration tokens that were sent to each expert, by block."""

    calibration_tokens: int
    """All of them; a token is sent to several experts of a block."""
    by_block: dict[int, tuple[int, ...]]
    """A block's number, and the tokens of its experts in their order."""

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
    def none(self) -> int:
        """Experts that saw no token."""
        return sum(not tokens for block in self.by_block.values() for tokens in block)
