"""Known answers for the paired comparison, and agreement with a direct computation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from quantlab.analysis.paired import compare_means, mean_drop


def test_one_item_has_no_standard_error() -> None:
    assert compare_means([1.5], [1.0]).standard_error is None


def test_pairing_is_tighter_than_two_samples_where_answers_agree() -> None:
    reference = np.array([1.0] * 60 + [0.0] * 40)
    variant = reference.copy()
    variant[:3] = 0.0
    unpaired = 100 * math.sqrt(reference.var(ddof=1) / 100 + variant.var(ddof=1) / 100)
    error = compare_means(reference, variant).standard_error
    assert error is not None and 100 * error < unpaired / 2


def test_continuous_values_by_hand() -> None:
    found = compare_means([1.0, 2.0, 4.0], [0.0, 2.0, 2.0])
    assert (found.n, found.difference) == (3, pytest.approx(1.0))
    assert found.standard_error == pytest.approx(1.0 / math.sqrt(3))


def test_mean_drop_counts_tasks_alike_and_adds_their_variances() -> None:
    found = mean_drop([1.0, 5.0], [3.0, 4.0])
    assert (found.points, found.tasks) == (3.0, 2)
    assert found.standard_error == pytest.approx(2.5)


def test_mean_drop_has_no_standard_error_where_a_task_has_none() -> None:
    assert mean_drop([1.0, 2.0], [0.5, None]).standard_error is None


@pytest.mark.parametrize(
    ("a", "b"), [([1, 0], [1]), ([], []), ([[1], [0]], [[1], [0]])], ids=["lengths", "empty", "two axes"]
)
def test_refuses_what_is_no_pair(a: list[int], b: list[int]) -> None:
    with pytest.raises(ValueError, match="same items"):
        compare_means(a, b)
