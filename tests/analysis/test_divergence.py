"""Known answers and relations of the divergence's statistics."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import rel_entr, softmax

from quantlab.analysis.divergence import MIN_WINDOWS, WindowSums, log_softmax, scored, summarize, window_sums

LENGTH, VOCABULARY = 16, 50


@pytest.fixture
def window() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    p, q = (rng.normal(size=(LENGTH, VOCABULARY)).astype(np.float32) * 2 for _ in range(2))
    return p, q, rng.integers(0, VOCABULARY, LENGTH)


def test_the_second_half_is_scored_as_llama_perplexity_does() -> None:
    assert list(range(512))[scored(512)] == list(range(256, 511))


def test_a_model_against_itself_is_exactly_zero(window: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    p, _, ids = window
    sums = window_sums(p, p, ids)
    assert sums.kl == 0.0 and sums.nll == sums.reference_nll and sums.top1_agreements == sums.tokens


def test_the_divergence_is_scipys(window: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    p, q, ids = window
    rows = scored(LENGTH)
    expected = rel_entr(softmax(p[rows].astype(np.float64), -1), softmax(q[rows].astype(np.float64), -1)).sum()
    assert window_sums(p, q, ids).kl == pytest.approx(expected, rel=1e-5)


def test_the_loss_is_of_the_next_token(window: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    p, q, ids = window
    log_q = np.log(softmax(q.astype(np.float64), -1))
    expected = -sum(log_q[i, ids[i + 1]] for i in range(LENGTH // 2, LENGTH - 1))
    assert window_sums(p, q, ids).nll == pytest.approx(expected, rel=1e-5)


def test_log_softmax_does_not_change_its_input(window: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    p = window[0].copy()
    np.testing.assert_allclose(np.exp(log_softmax(p)).sum(-1), 1, rtol=1e-5)
    assert (p == window[0]).all()


def test_standard_errors_are_clustered_by_window() -> None:
    # every token of a window alike: the tokens are many, the independent values only the windows
    kl = np.random.default_rng(2).gamma(2.0, 0.01, MIN_WINDOWS)
    found = summarize([WindowSums(100, 100 * k, 100 * k**2, 300.0, 290.0, 90) for k in kl])
    assert found.kl.standard_error == pytest.approx(kl.std(ddof=1) / math.sqrt(MIN_WINDOWS))
    assert found.kl_token_standard_error < found.kl.standard_error / 5
    assert found.perplexity.value == pytest.approx(math.exp(3))
    assert found.log_perplexity_ratio.value == pytest.approx(0.1) and found.log_perplexity_ratio.standard_error == pytest.approx(
        0, abs=1e-12
    )


def test_no_interval_below_thirty_windows() -> None:
    found = summarize([WindowSums(10, 0.1 * i, 0.1, 30, 30, 9) for i in range(MIN_WINDOWS - 1)])
    assert found.kl.standard_error is None and found.kl.n == MIN_WINDOWS - 1
