"""Compute the loss of a transformers model in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def mean_loss(logits: NDArray[np.float32], token_ids: NDArray[np.int64]) -> float:
    """Mean negative log-likelihood in nats of token_ids[1:], logits (length, vocabulary) of token_ids
    (length,)."""
    import numpy as np

    rows = logits[:-1].astype(np.float64)
    top = rows.max(axis=1, keepdims=True)
    log_sum = top[:, 0] + np.log(np.exp(rows - top).sum(axis=1))
    return float(np.mean(log_sum - rows[np.arange(len(rows)), token_ids[1:]]))


def model_loss(model: Any) -> Callable[[NDArray[np.int64]], float]:
    """The loss of a transformers model, as a function of token ids (length,)."""

    def loss(token_ids: NDArray[np.int64]) -> float:
        import torch

        with torch.inference_mode():
            ids = torch.from_numpy(token_ids)[None].to(next(model.parameters()).device)
            return mean_loss(model(input_ids=ids, use_cache=False).logits[0].float().cpu().numpy(), token_ids)

    return loss
