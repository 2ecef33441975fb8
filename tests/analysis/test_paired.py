"""Known answers for the paired comparison, and agreement with a direct computation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from quantlab.analysis.paired import PairedAccuracy, compare_accuracy, compare_means, mean_drop


def test_counts_and_drop_by_hand() -> None:
    found = compare_accuracy([1, 1, 1, 1, 0, 0, 0, 1, 1, 0], [1, 0, 0, 0, 1, 0, 0, 1, 1, 0])
    assert found == PairedAccuracy(n=10, right_to_wrong=3, wrong_to_right=1)
    assert found.drop_points == pytest.approx(20.0)
    assert found.flips == pytest.approx(0.4)
    # differences: three of 1, one of -1, six of 0; mean 0.2, squares 4; variance (4 - 10 * 0.04) / 9 = 0.4
    assert found.standard_error_points == pytest.approx(100 * math.sqrt(0.4 / 10))


def test_without_flips_the_standard_error_is_zero_and_the_flips_say_why() -> None:
    found = compare_accuracy([1, 0, 1], [1, 0, 1])
    assert (found.drop_points, found.standard_error_points, found.flips) == (0.0, 0.0, 0.0)


def test_one_item_has_no_standard_error() -> None:
    assert compare_accuracy([1], [0]).standard_error_points is None
    assert compare_means([1.5], [1.0]).standard_error is None


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_standard_error_of_per_item_differences(seed: int) -> None:
    rng = np.random.default_rng(seed)
    reference, variant = rng.integers(0, 2, 137), rng.integers(0, 2, 137)
    difference = (reference - variant).astype(float)
    found = compare_accuracy(reference, variant)
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    assert found.drop_points == pytest.approx(100 * difference.mean())
    assert found.standard_error_points == pytest.approx(100 * error)
    means = compare_means(reference, variant)
    assert (means.difference, means.standard_error) == (pytest.approx(difference.mean()), pytest.approx(error))


def test_swapping_the_two_changes_the_sign_alone() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 2, 50), rng.integers(0, 2, 50)
    there, back = compare_accuracy(a, b), compare_accuracy(b, a)
    assert there.drop_points == -back.drop_points
    assert there.standard_error_points == pytest.approx(back.standard_error_points)


def test_pairing_is_tighter_than_two_samples_where_answers_agree() -> None:
    reference = np.array([1.0] * 60 + [0.0] * 40)
    variant = reference.copy()
    variant[:3] = 0.0
    unpaired = 100 * math.sqrt(reference.var(ddof=1) / 100 + variant.var(ddof=1) / 100)
    error = compare_accuracy(reference, variant).standard_error_points
    assert error is not None and error < unpaired / 2


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


@pytest.mark.parametrize(("a", "b"), [([1, 0], [1]), ([], []), ([[1], [0]], [[1], [0]])], ids=["lengths", "empty", "two axes"])
def test_refuses_what_is_no_pair(a: list[int], b: list[int]) -> None:
    with pytest.raises(ValueError, match="same items"):
        compare_accuracy(a, b)


def test_refuses_answers_that_are_not_right_or_wrong() -> None:
    with pytest.raises(ValueError, match="0 or 1"):
        compare_accuracy([1, 0.5], [1, 0])
