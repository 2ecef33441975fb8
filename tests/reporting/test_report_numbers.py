"""How numbers are written."""

from __future__ import annotations

import pytest

from quantlab import numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0000004, "4.00e-7"),
        (0.0590, "0.0590"),
        (0.00136, "0.00136"),
        (8.123, "8.12"),
        (0.9996, "1.00"),
        (-0.0123, "-0.0123"),
        (61.44, "61.4"),
    ],
)
def test_three_significant_digits(value: float, text: str) -> None:
    assert numbers.significant(value) == text


def test_zero_has_no_digits_and_no_sign() -> None:
    assert numbers.significant(0.0) == "0"
    assert numbers.fixed(-0.0001, 1) == "0.0"
    assert numbers.percent(-0.0001) == "0.0 %"


@pytest.mark.parametrize(("value", "text"), [(27.314, "27.31"), (106.26, "106.3"), (5637.4, "5,637")])
def test_perplexity(value: float, text: str) -> None:
    assert numbers.perplexity(value) == text


def test_drop_without_a_flip_is_not_written_as_certain() -> None:
    assert "±" not in numbers.points(0.0, 0.0)
    assert numbers.points(1.0, 1.02) == "1.0 ± 1.0"
    assert numbers.points(0.55, 0.26) == "0.55 ± 0.26"


def test_units() -> None:
    assert numbers.unit_for([269e6]).name == "MB"
    assert numbers.unit_for([269e6, 54e9]).text(54e9) == "54.0"
    assert numbers.MEGABYTE.text(105_500_000) == "105.5"


def test_listing() -> None:
    assert [numbers.listing(words) for words in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "none",
        "a",
        "a and b",
        "a, b and c",
    ]
