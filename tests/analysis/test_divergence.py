"""Known answers and relations of the divergence's statistics."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import rel_entr, softmax
from scipy.stats import entropy

from quantlab.analysis.clustered import MIN_CLUSTERS
from quantlab.analysis.divergence import WindowValues, log_softmax, scored, summarize, window_values

LENGTH, VOCABULARY = 16, 50
Window = tuple[np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture
def window() -> Window:
    rng = np.random.default_rng(1)
    p, q = (rng.normal(size=(LENGTH, VOCABULARY)).astype(np.float32) * 2 for _ in range(2))
    return p, q, rng.integers(0, VOCABULARY, LENGTH)


def values(windows: int, tokens: int, seed: int = 2) -> list[WindowValues]:
    """Windows whose tokens are all alike, so that the windows alone are independent."""
    rng = np.random.default_rng(seed)
    one = np.ones(tokens)
    return [
        WindowValues(kl * one, 3 * one, 2.9 * one, rng.random() * one, one, 0.8 * one)
        for kl in rng.gamma(2.0, 0.01, windows)
    ]


def test_the_second_half_is_scored_as_llama_perplexity_does() -> None:
    assert list(range(512))[scored(512)] == list(range(256, 511))


def test_a_model_against_itself_is_exactly_zero(window: Window) -> None:
    p, _, ids = window
    found = window_values(p, p, ids)
    assert (
        (found.kl == 0).all()
        and (found.nll == found.reference_nll).all()
        and (found.top1 == 1).all()
        and (found.top5 == 1).all()
    )
    whole = summarize([found] * 2)
    assert (
        whole.kl.value,
        whole.kl_max,
        whole.delta_p.value,
        whole.delta_p_rms.value,
        whole.log_perplexity_ratio.value,
    ) == (0, 0, 0, 0, 0)


def test_divergence_and_entropy_are_scipys(window: Window) -> None:
    p, q, ids = window
    rows = scored(LENGTH)
    exact_p, exact_q = (softmax(x[rows].astype(np.float64), -1) for x in (p, q))
    found = window_values(p, q, ids)
    np.testing.assert_allclose(found.kl, rel_entr(exact_p, exact_q).sum(-1), rtol=1e-5)
    np.testing.assert_allclose(found.entropy, entropy(exact_p, axis=-1), rtol=1e-5)


def test_the_loss_is_of_the_next_token(window: Window) -> None:
    p, q, ids = window
    log_q = np.log(softmax(q.astype(np.float64), -1))
    expected = [-log_q[i, ids[i + 1]] for i in range(LENGTH // 2, LENGTH - 1)]
    np.testing.assert_allclose(window_values(p, q, ids).nll, expected, rtol=1e-5)


def test_agreements_by_hand() -> None:
    order = np.arange(10, dtype=np.float32)
    reference, variant = np.tile(order, (4, 1)), np.tile(order, (4, 1))
    variant[2] = order[::-1]  # its best five are the reference's worst five
    variant[1, 9], variant[1, 0] = 0.0, 9.0  # one of five differs, and the best
    found = window_values(reference, variant, np.zeros(4, np.int64))
    assert found.top1.tolist() == [0.0] and found.top5.tolist() == [0.0]
    found = window_values(reference[:2].repeat(2, 0), variant[:2].repeat(2, 0), np.zeros(4, np.int64))
    assert found.top1.tolist() == [0.0] and found.top5 == pytest.approx([0.8])


def test_log_softmax_does_not_change_its_input(window: Window) -> None:
    p = window[0].copy()
    np.testing.assert_allclose(np.exp(log_softmax(p)).sum(-1), 1, rtol=1e-5)
    assert (p == window[0]).all()


def test_standard_errors_are_clustered_by_window() -> None:
    windows = values(MIN_CLUSTERS, 100)
    found, kl = summarize(windows), np.array([w.kl[0] for w in windows])
    assert found.kl.standard_error == pytest.approx(kl.std(ddof=1) / math.sqrt(MIN_CLUSTERS))
    assert found.kl_token_standard_error < found.kl.standard_error / 5
    assert found.perplexity.value == pytest.approx(
        math.exp(3)
    ) and found.reference_perplexity.value == pytest.approx(math.exp(2.9))
    assert found.log_perplexity_ratio.value == pytest.approx(0.1)
    assert found.log_perplexity_ratio.standard_error == pytest.approx(0, abs=1e-12)  # paired: nothing varies
    assert (
        found.delta_p.value
        == pytest.approx(math.exp(-3) - math.exp(-2.9))
        == pytest.approx(-found.delta_p_rms.value)
    )


def test_no_interval_below_thirty_windows_and_none_in_the_tail_below_a_hundred() -> None:
    few, some, many = (summarize(values(n, 10)) for n in (MIN_CLUSTERS - 1, MIN_CLUSTERS, 100))
    assert few.kl.standard_error is few.kl_percentiles["median"].standard_error is None
    assert some.kl_percentiles["p90"].standard_error and some.kl_percentiles["p99"].standard_error is None
    assert many.kl_percentiles["p99.9"].standard_error is not None


def test_percentiles_are_of_all_tokens_and_rise_to_the_maximum() -> None:
    rng = np.random.default_rng(3)
    windows = [w._replace(kl=rng.gamma(1.0, 1.0, 40)) for w in values(32, 40)]
    found, kl = summarize(windows), np.concatenate([w.kl for w in windows])
    shares = [e.value for e in found.kl_percentiles.values()]
    assert shares == sorted(shares) and shares[-1] <= found.kl_max == kl.max()
    assert found.kl_percentiles["p95"].value == pytest.approx(np.percentile(kl, 95))


def test_quarters_by_entropy_hold_every_token_once_and_average_to_the_whole() -> None:
    rng = np.random.default_rng(4)
    windows = [w._replace(entropy=(e := rng.random(40)), kl=e * 0.1) for w in values(32, 40)]
    found = summarize(windows)
    assert len(found.by_entropy) == 4 and sum(q.tokens for q in found.by_entropy) == found.tokens
    assert sum(
        q.tokens * q.kl_divergence_nats.value for q in found.by_entropy
    ) / found.tokens == pytest.approx(found.kl.value)
    kl = [q.kl_divergence_nats.value for q in found.by_entropy]
    assert kl == sorted(kl)


def test_the_bootstrap_of_a_median_is_near_its_theory() -> None:
    rng = np.random.default_rng(5)
    windows = [
        w._replace(kl=np.full(10, x)) for w, x in zip(values(200, 10), rng.normal(10, 1, 200), strict=True)
    ]
    error = summarize(windows).kl_percentiles["median"].standard_error
    assert error == pytest.approx(math.sqrt(math.pi / 2 / 200), rel=0.35)
