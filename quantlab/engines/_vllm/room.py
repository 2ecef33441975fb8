"""Refuse windows that vLLM cannot give the log-probabilities of, before they are asked for."""

from __future__ import annotations

from quantlab.errors import CellFailure
from quantlab.hardware.memory import available_bytes

BYTES_PER_LOGPROB = 160
"""Of vLLM's lists, at their peak: 143.9 measured with vLLM 0.32 on a CPU, and a tenth more."""


def require_room(tokens: int, vocabulary: int, context: int) -> None:
    """Raise CellFailure where a window and the token after it are more than the context, or the lists more
    than the free memory."""
    if tokens >= context:
        raise CellFailure(
            "unsupported",
            "vLLM gives the last row of a window with the token that it generates after it: a window of"
            f" {tokens:,} tokens leaves no room for it in {context:,}; use shorter windows or the"
            " transformers engine",
        )
    needed, there = tokens * vocabulary * BYTES_PER_LOGPROB, available_bytes()
    if needed > there:
        raise CellFailure(
            "does_not_fit",
            f"vLLM gives the log-probabilities of {tokens} tokens over {vocabulary:,} words"
            f" in about {needed / 2**30:.0f} GiB of lists, {there / 2**30:.0f} GiB are free: use shorter"
            " windows or the transformers engine",
        )
