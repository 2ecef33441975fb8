"""Sets of experts are compared, whatever their order."""

from __future__ import annotations

import numpy as np
import pytest

from quantlab.analysis.routing import as_sets, kept_type, replaced, summarize


def test_order_does_not_count_and_each_other_expert_does() -> None:
    reference = np.array([[0, 3, 7], [0, 3, 7], [0, 3, 7], [0, 3, 7]], np.uint8)
    variant = np.array([[7, 0, 3], [0, 3, 6], [1, 2, 3], [1, 2, 4]], np.int64)
    assert replaced(reference, variant).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("experts", "kind"), [(1, "uint8"), (8, "uint8"), (256, "uint8"), (257, "uint16"), (384, "uint16")]
)
def test_sets_take_one_byte_up_to_256_experts(experts: int, kind: str) -> None:
    sets = as_sets(np.array([[experts - 1, 0]]), experts)
    assert (sets.dtype.name, kept_type(experts).name, sets.tolist()) == (kind, kind, [[0, experts - 1]])


def test_shares_are_means_over_tokens_and_blocks() -> None:
    # blocks 1 and 4, two windows of four tokens, two experts each
    counts = np.array([[[0, 0, 0, 0], [0, 0, 0, 2]], [[0, 1, 1, 2], [0, 0, 0, 0]]], np.float32)
    made = summarize(counts, (1, 4), experts=8, per_token=2)
    assert made.changed_token_share_by_block == {1: 1 / 8, 4: 3 / 8}
    assert made.changed_token_share.value == 4 / 16
    assert made.replaced_expert_share.value == (2 + 4) / 32
    assert made.changed_token_share.n == 2 and made.changed_token_share.standard_error is None


def test_thirty_windows_have_an_error_clustered_by_window() -> None:
    counts = np.zeros((1, 30, 4), np.float32)
    counts[0, :15] = 1  # every token of half of the windows
    made = summarize(counts, (0,), experts=4, per_token=1)
    by_window = np.repeat([1.0, 0.0], 15)
    assert made.changed_token_share.value == 0.5
    assert made.changed_token_share.standard_error == pytest.approx(by_window.std(ddof=1) / 30**0.5)
