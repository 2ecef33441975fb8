"""Compute the divergence of a variant's next-token distributions Q from the reference's P, and both
perplexities.

Included: every token of the second half of each window, so that each has context (llama.cpp's convention),
over the whole vocabulary, from float32 log-softmax. Left out: the first half of each window. Tokens within a
window are not independent: standard errors are clustered by window (`quantlab.analysis.clustered`)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantlab.analysis import clustered
from quantlab.processors import cores
from quantlab.records import Estimate, SureTokens

METRICS_VERSION = 2
PERCENTILES = {"median": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p99.9": 99.9}
QUARTERS = 4
_TOP = 5
_BLOCK = 4
"""Rows that are compared at once."""

Floats = NDArray[np.floating[Any]]


class WindowValues(NamedTuple):
    """What is kept of one window, one number per scored token, shape (tokens,)."""

    kl: Floats
    """Sum over the vocabulary of P (ln P - ln Q), nats."""
    nll: Floats
    """Negative log-likelihood of the text under Q, nats."""
    reference_nll: Floats
    entropy: Floats
    """Of P, nats: how unsure the reference was."""
    top1: Floats
    """1 where both have the same most likely token."""
    top5: Floats
    """Share of the reference's five most likely tokens that are among the variant's."""


def scored(length: int) -> slice:
    """Rows of a window whose next token is scored: positions length // 2 to length - 2, as llama-perplexity
    does."""
    return slice(length // 2, length - 1)


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Log-probabilities over the last axis; float32 in and out, shape (tokens, vocabulary)."""
    shifted: NDArray[np.float32] = logits - logits.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


def is_finite(values: NDArray[np.floating[Any]]) -> bool:
    """Whether no number is NaN or infinite; without an array of the same size beside it."""
    return math.isfinite(float(values.max())) and math.isfinite(float(values.min()))


def window_values(
    reference: NDArray[np.float32], variant: NDArray[np.float32], token_ids: NDArray[np.int64]
) -> WindowValues:
    """Compare the logits of one window of token ids (length,): each (rows, vocabulary), the window's last
    rows, all that are scored."""
    rows = scored(len(token_ids))
    p, q = (logits[len(logits) - len(token_ids) + rows.start : -1] for logits in (reference, variant))
    targets = token_ids[1:][rows]
    # a few rows at a time, their arrays stay in the processor's cache; numpy lets threads compute side by
    # side
    blocks = [slice(i, i + _BLOCK) for i in range(0, max(1, len(targets)), _BLOCK)]
    with ThreadPoolExecutor(cores()) as pool:
        parts = list(pool.map(lambda block: _compare(p[block], q[block], targets[block]), blocks))
    return WindowValues(*(np.concatenate(column, dtype=np.float64) for column in zip(*parts, strict=True)))


def _compare(
    reference: NDArray[np.float32], variant: NDArray[np.float32], targets: NDArray[np.int64]
) -> WindowValues:
    """Each row's values; `targets` are the text's next tokens."""
    log_p, log_q = log_softmax(reference), log_softmax(variant)
    index = np.arange(len(targets))
    nll, reference_nll = -log_q[index, targets], -log_p[index, targets]
    best_p, best_q = _best(log_p), _best(log_q)
    top5 = (best_p[:, :, None] == best_q[:, None, :]).any(axis=2).mean(axis=1)
    top1 = log_p.argmax(-1) == log_q.argmax(-1)
    difference = np.subtract(log_p, log_q, out=log_q)
    p = np.exp(log_p)
    kl = np.einsum("tv,tv->t", p, difference)
    entropy = -np.einsum("tv,tv->t", p, log_p)
    return WindowValues(*(np.asarray(v, np.float64) for v in (kl, nll, reference_nll, entropy, top1, top5)))


def _best(log_p: NDArray[np.float32]) -> NDArray[np.int64]:
    """The most likely tokens of each row, in no order, shape (tokens, 5 or the vocabulary's size)."""
    few = min(_TOP, log_p.shape[1])
    tokens: NDArray[np.int64] = np.argpartition(log_p, log_p.shape[1] - few, axis=1)[:, -few:]
    return tokens


class DivergenceSummary(NamedTuple):
    """The statistics of all windows; every standard error clustered by window."""

    tokens: int
    perplexity: Estimate
    reference_perplexity: Estimate
    log_perplexity_ratio: Estimate
    kl: Estimate
    kl_token_standard_error: float
    """Tokens taken as independent, as llama.cpp prints it."""
    kl_percentiles: dict[str, Estimate]
    kl_max: float
    top1_agreement: Estimate
    top5_overlap: Estimate
    delta_p: Estimate
    """Mean of Q(x) - P(x), x the text's next token."""
    delta_p_rms: Estimate
    by_entropy: tuple[SureTokens, ...]
    """Quarters of the tokens by the reference's entropy, the surest first."""


def summarize(windows: Sequence[WindowValues]) -> DivergenceSummary:
    """Means over all scored tokens. All windows score the same number of tokens."""
    return summarize_columns(WindowValues(*(np.stack(column) for column in zip(*windows, strict=True))))


def summarize_columns(columns: WindowValues) -> DivergenceSummary:
    """The same of arrays (windows, tokens), which may be mapped from a file: what is computed of them is kept
    per window.

    Perplexity by the delta method: PPL × SE(mean loss). ln(PPL_Q / PPL_P) is the mean of the paired
    differences of the losses, so Var_Q + Var_P - 2 Cov is in its standard error."""
    kl, nll, reference_nll, entropy, top1, top5 = columns
    whole = clustered.mean(kl)
    paired = np.array([_paired(q, p) for q, p in zip(nll, reference_nll, strict=True)])
    ratio, delta_p, square = (clustered.mean(paired[:, [i]]) for i in range(3))
    rms = math.sqrt(square.value)
    spread = sum(float(((row.astype(np.float64) - whole.value) ** 2).sum()) for row in kl)
    return DivergenceSummary(
        tokens=kl.size,
        perplexity=_exp(clustered.mean(nll)),
        reference_perplexity=_exp(clustered.mean(reference_nll)),
        log_perplexity_ratio=ratio,
        kl=whole,
        kl_token_standard_error=math.sqrt(spread / (kl.size - 1) / kl.size) if kl.size > 1 else 0.0,
        kl_percentiles={name: clustered.percentile(kl, q) for name, q in PERCENTILES.items()},
        kl_max=float(kl.max()),
        top1_agreement=clustered.mean(top1),
        top5_overlap=clustered.mean(top5),
        delta_p=delta_p,
        delta_p_rms=Estimate(
            value=rms,
            standard_error=(
                None if square.standard_error is None or not rms else square.standard_error / (2 * rms)
            ),
            n=square.n,
        ),
        by_entropy=_by_entropy(kl, entropy, top1),
    )


def _paired(nll: Floats, reference_nll: Floats) -> tuple[float, float, float]:
    """Means over one window's tokens: the losses' difference, Q(x) - P(x), and its square."""
    q, p = nll.astype(np.float64), reference_nll.astype(np.float64)
    delta = np.exp(-q) - np.exp(-p)
    return float((q - p).mean()), float(delta.mean()), float((delta**2).mean())


def _by_entropy(kl: Floats, entropy: Floats, top1: Floats) -> tuple[SureTokens, ...]:
    """Mean divergence and agreement in each quarter of the tokens by entropy; a window without such tokens
    counts nothing."""
    edges = np.quantile(entropy, np.linspace(0, 1, QUARTERS + 1))
    quarters = []
    for i, (low, high) in enumerate(itertools.pairwise(edges)):
        rows = [_inside(row, low, high if i < QUARTERS - 1 else math.inf) for row in entropy]
        counts = np.array([inside.sum() for inside in rows])
        if not counts.any():
            continue  # equal edges: a quarter of tokens that are all alike
        sums = (
            np.array([row[inside].sum(dtype=np.float64) for row, inside in zip(v, rows, strict=True)])
            for v in (kl, top1)
        )
        divergence, agreement = (clustered.ratio(values, counts) for values in sums)
        quarters.append(
            SureTokens(
                entropy_from_nats=float(low),
                entropy_to_nats=float(high),
                tokens=int(counts.sum()),
                kl_divergence_nats=divergence,
                top1_agreement=agreement,
            )
        )
    return tuple(quarters)


def _inside(entropy: Floats, low: float, high: float) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = (entropy >= low) & (entropy < high)
    return inside


def _exp(loss: Estimate) -> Estimate:
    """Perplexity of a mean loss; infinity is refused by the record, so a loss beyond floats is capped where
    exp is."""
    value = math.exp(min(loss.value, 200.0))
    return Estimate(
        value=value,
        standard_error=None if loss.standard_error is None else value * loss.standard_error,
        n=loss.n,
    )
