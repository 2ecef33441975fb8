"""Where two texts part, by hand."""

from __future__ import annotations

import pytest

from quantlab.analysis.textdiff import first_divergence, sign_test, word_diff


def test_first_divergence() -> None:
    assert first_divergence([1, 2, 3], [1, 2, 3]) is None
    assert first_divergence([1, 2, 3], [1, 9, 3]) == 1
    assert first_divergence([1, 2], [1, 2, 3]) == 2 and first_divergence([], [1]) == 0


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("the cat sat on  the mat", "the dog sat on  the red mat\nnow"),
        ("the sky. It is", "the sky.\n\nIt is blue"),
        (" led by space", "led by  space \n"),
        ("", "all new"),
        ("all gone ", ""),
        ("", ""),
    ],
)
def test_both_texts_come_back_from_the_spans(first: str, second: str) -> None:
    spans = word_diff(first, second)
    assert "".join(s.text for s in spans if s.kind != "second") == first
    assert "".join(s.text for s in spans if s.kind != "first") == second


def test_a_word_is_changed_by_its_letters_and_not_by_the_white_space_after_it() -> None:
    assert word_diff("the cat sat", "the dog sat") == [
        ("same", "the "),
        ("first", "cat "),
        ("second", "dog "),
        ("same", "sat"),
    ]
    assert word_diff("the sky. It", "the sky.\nIt") == [
        ("same", "the sky."),
        ("first", " "),
        ("second", "\n"),
        ("same", "It"),
    ]
    assert word_diff("the sky.", "the sky. It") == [("same", "the sky."), ("second", " It")]


def test_the_sign_test_is_scipys() -> None:
    from scipy.stats import binomtest

    for a, b in ((0, 0), (3, 3), (0, 5), (2, 9), (12, 30)):
        expected = 1.0 if a + b == 0 else binomtest(a, a + b, 0.5).pvalue
        assert sign_test(a, b) == sign_test(b, a) == pytest.approx(expected)
