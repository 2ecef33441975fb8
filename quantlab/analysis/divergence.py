"""Divergence of a variant's next-token distributions Q from the reference's P, and both perplexities.

Included: every token of the second half of each window, so that each has context (llama.cpp's convention), over the
whole vocabulary, from float32 log-softmax. Left out: the first half of each window. Sums are kept per window, because
tokens within a window are not independent: standard errors are clustered by window.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantlab.records import Estimate

METRICS_VERSION = 1
MIN_WINDOWS = 30
"""Below it no interval or standard error is given (the window means are too few)."""


class WindowSums(NamedTuple):
    """Sums over the scored tokens of one window."""

    tokens: int
    kl: float
    kl_squared: float
    nll: float
    """Negative log-likelihood of the text under Q, nats."""
    reference_nll: float
    top1_agreements: int


def scored(length: int) -> slice:
    """Rows of a window whose next token is scored: positions length // 2 to length - 2, as llama-perplexity does."""
    return slice(length // 2, length - 1)


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Log-probabilities over the last axis; float32 in and out, shape (tokens, vocabulary)."""
    shifted: NDArray[np.float32] = logits - logits.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


def window_sums(reference: NDArray[np.float32], variant: NDArray[np.float32], token_ids: NDArray[np.int64]) -> WindowSums:
    """Compare two logits arrays (length, vocabulary) of one window of token ids (length,).

    KL divergence per token = sum over the vocabulary of P (ln P - ln Q), in nats.
    """
    rows = scored(len(token_ids))
    log_p, log_q = log_softmax(reference[rows]), log_softmax(variant[rows])
    targets = token_ids[1:][rows]
    agreements = int(np.sum(log_p.argmax(-1) == log_q.argmax(-1)))
    index = np.arange(len(targets))
    nll, reference_nll = -log_q[index, targets].astype(np.float64), -log_p[index, targets].astype(np.float64)
    difference = np.subtract(log_p, log_q, out=log_q)
    np.exp(log_p, out=log_p)
    kl = np.einsum("tv,tv->t", log_p, difference).astype(np.float64)
    return WindowSums(len(targets), float(kl.sum()), float((kl**2).sum()), float(nll.sum()), float(reference_nll.sum()), agreements)


class Divergence(NamedTuple):
    """The statistics of all windows."""

    tokens: int
    perplexity: Estimate
    reference_perplexity: Estimate
    kl: Estimate
    kl_token_standard_error: float
    top1_agreement: Estimate
    log_perplexity_ratio: Estimate


def summarize(windows: Sequence[WindowSums]) -> Divergence:
    """Means over all scored tokens with standard errors clustered by window.

    All windows score the same number of tokens, so the mean over tokens is the mean of the window means and its
    standard error is their standard deviation / sqrt(windows). Perplexity by the delta method: PPL × SE(mean loss).
    ln(PPL_Q / PPL_P) is the mean of the paired differences of the losses, so the covariance is in its standard error.
    """
    tokens = sum(w.tokens for w in windows)
    kl = _mean([w.kl / w.tokens for w in windows])
    token_variance = sum(w.kl_squared for w in windows) / tokens - kl.value**2
    return Divergence(
        tokens,
        _exp(_mean([w.nll / w.tokens for w in windows])),
        _exp(_mean([w.reference_nll / w.tokens for w in windows])),
        kl,
        math.sqrt(max(token_variance, 0.0) / max(tokens - 1, 1)),
        _mean([w.top1_agreements / w.tokens for w in windows]),
        _mean([(w.nll - w.reference_nll) / w.tokens for w in windows]),
    )


def _mean(values: Sequence[float]) -> Estimate:
    array = np.asarray(values, dtype=np.float64)
    error = float(array.std(ddof=1) / math.sqrt(len(array))) if len(array) >= MIN_WINDOWS else None
    return Estimate(value=float(array.mean()), standard_error=error, n=len(array))


def _exp(loss: Estimate) -> Estimate:
    """Perplexity of a mean loss; infinity is refused by the record, so a loss beyond floats is capped where exp is."""
    value = math.exp(min(loss.value, 700.0))
    return Estimate(value=value, standard_error=None if loss.standard_error is None else value * loss.standard_error, n=loss.n)
