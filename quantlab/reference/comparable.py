"""Check that a checkpoint's logits can be compared with the reference's: finite, same vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantlab.analysis.divergence import is_finite
from quantlab.errors import CellFailure
from quantlab.formats import GGUF
from quantlab.workspace.checkpoint import Checkpoint

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def require_finite(logits: NDArray[np.float32], where: str) -> NDArray[np.float32]:
    """The logits themselves. Raises CellFailure where one is not finite, with the place."""
    if not is_finite(logits):
        raise CellFailure("broken_checkpoint", f"the logits of {where} are not finite")
    return logits


def require_same_vocabulary(checkpoint: Checkpoint, configured: int, stored: int) -> None:
    """Raise CellFailure where the checkpoint has another vocabulary, before anything runs.

    `configured` is what the source's config says, `stored` the rows of its head; a model may pad them.
    """
    if checkpoint.manifest.format == GGUF:
        from quantlab.formats.gguf import stored_tensors

        rows = [
            tensor.shape[1]
            for tensor in stored_tensors(checkpoint.gguf())
            if tensor.name == "token_embd.weight"
        ]
        if rows and rows[0] != stored:
            raise other_vocabulary(rows[0], stored)
        return
    from quantlab.models.loading import broken_checkpoint, load_config

    config = load_config(checkpoint.weights, checkpoint.manifest.trust_remote_code, broken_checkpoint)
    tokens = int(config.get_text_config().vocab_size)
    if tokens != configured:
        raise other_vocabulary(tokens, configured)


def other_vocabulary(tokens: int, expected: int) -> CellFailure:
    """The failure of two vocabularies' sizes."""
    return CellFailure(
        "unsupported",
        f"the vocabulary has {tokens:,} tokens, the reference's {expected:,}: they cannot be compared",
    )
