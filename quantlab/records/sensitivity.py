"""Define the record of the sensitivity stage: the loss of each part alone."""

from __future__ import annotations

from typing import Literal

from quantlab.frozen import Frozen
from quantlab.records.base import Estimate, Record


class PartLoss(Frozen):
    """What one part of the quantized model costs alone."""

    part: str
    """Name of the module, or `the rest` for everything outside the blocks."""
    kl_divergence_nats: Estimate


class SensitivityRecord(Record):
    """The sensitivity stage's result: each part of the quantized model swapped alone into the unquantized
    one."""

    granularity: Literal["block", "linear"] = "block"
    windows: int = 0
    window_tokens: int = 0
    dtype: str | None = None
    whole: Estimate | None = None
    """Mean divergence with every part swapped."""
    parts: tuple[PartLoss, ...] = ()
    seconds: float | None = None
    nothing_swapped_nats: float | None = None
    """Mean divergence of the unquantized model from its own reference here: parts below it cannot be told."""
    reference_sha256: str | None = None
    """Of the reference's own description, as in the divergence record."""
    reference_dtype: str | None = None
