"""Known answers and relations of money."""

from __future__ import annotations

import math

import pytest

from quantlab.errors import QuantlabError
from quantlab.recommend.cost import (
    Hire,
    Hosted,
    Purchase,
    Rate,
    TokenPrices,
    Traffic,
    capacity,
    compare,
    monthly,
)

ARTICLE = Hosted(8, Purchase(30_000, 36, 0.7, 0.12), hosting_dollars_per_month=2_500, hours_per_month=720)
PRO = TokenPrices(input=0.58, output=3.48, cached_input=0.14)
ALL_OUTPUT = Traffic(5_000e6)
FAST = Rate(15_000)


def test_the_articles_example() -> None:
    found = compare(ALL_OUTPUT, ARTICLE, FAST, PRO)
    assert (
        round(found.rig.hardware) == 6_667
        and round(found.rig.power, 2) == 483.84
        and found.rig.hosting == 2_500
    )
    assert round(found.self_hosting_dollars_per_month) == 9_651
    assert round(found.api_dollars_per_month) == 17_400
    assert round(found.break_even_tokens_per_month / 1e6) == 2_773
    assert found.capacity_tokens_per_month == 38_880e6
    assert (found.rigs, found.breaks_even, found.cheaper) == (1, True, "self-hosting")


def test_at_the_break_even_both_cost_the_same_and_below_it_the_api_is_cheaper() -> None:
    even = compare(ALL_OUTPUT, ARTICLE, FAST, PRO).break_even_tokens_per_month
    at = compare(Traffic(even), ARTICLE, FAST, PRO)
    assert at.self_hosting_dollars_per_month == pytest.approx(at.api_dollars_per_month)
    assert compare(Traffic(even * 0.99), ARTICLE, FAST, PRO).cheaper == "api"
    assert compare(Traffic(even * 1.01), ARTICLE, FAST, PRO).cheaper == "self-hosting"


def test_a_rig_too_slow_for_its_break_even_is_never_cheaper_however_many_there_are() -> None:
    slow = Rate(1_000)
    for tokens in (1e6, 2.6e9, 30e9, 1e12):
        found = compare(Traffic(tokens), ARTICLE, slow, PRO)
        assert not found.breaks_even and found.cheaper == "api"
        assert found.rigs == max(1, math.ceil(tokens / (1_000 * 720 * 3600)))


def test_input_output_and_cached_input_have_their_own_prices() -> None:
    traffic = Traffic(100e6, input_share=0.8, cached_share=0.25)
    assert compare(traffic, ARTICLE, FAST, PRO).api_dollars_per_month == pytest.approx(
        60 * 0.58 + 20 * 0.14 + 20 * 3.48
    )
    without = TokenPrices(0.58, 3.48)
    assert compare(traffic, ARTICLE, FAST, without).api_dollars_per_month == pytest.approx(
        80 * 0.58 + 20 * 3.48
    )


def test_prefill_takes_time_and_cached_input_none() -> None:
    rate = Rate(1_000, 10_000)
    half = capacity(ARTICLE, rate, Traffic(1, 0.5).shares)
    assert half == pytest.approx(720 * 3600 / (0.5 / 1_000 + 0.5 / 10_000))
    assert capacity(ARTICLE, rate, Traffic(1, 0.5, 1.0).shares) == pytest.approx(2 * 720 * 3600 * 1_000)
    assert capacity(ARTICLE._replace(utilisation=0.25), rate, Traffic(1, 0.5).shares) == pytest.approx(
        half / 4
    )


def test_hire_includes_the_power() -> None:
    hired = monthly(Hosted(8, Hire(2.0), 100, 720))
    assert hired == (8 * 2 * 720, 0, 100)
    assert hired.total == 11_620


@pytest.mark.parametrize(
    ("traffic", "hosted", "rate", "said"),
    [
        (Traffic(0), ARTICLE, FAST, "tokens per month is 0"),
        (Traffic(-1), ARTICLE, FAST, "tokens per month is -1"),
        (Traffic(1, 1.5), ARTICLE, FAST, "input share is 1.5"),
        (Traffic(1, 0.5, -0.1), ARTICLE, FAST, "cached share is -0.1"),
        (Traffic(math.nan), ARTICLE, FAST, "tokens per month is nan"),
        (ALL_OUTPUT, ARTICLE._replace(gpus=0), FAST, "number of GPUs is 0"),
        (ALL_OUTPUT, ARTICLE._replace(utilisation=1.2), FAST, "utilised share is 1.2"),
        (ALL_OUTPUT, ARTICLE._replace(hosting_dollars_per_month=-1), FAST, "hosting is -1"),
        (ALL_OUTPUT, ARTICLE._replace(paid=Purchase(1, 0, 1, 1)), FAST, "depreciation is 0"),
        (ALL_OUTPUT, ARTICLE, Rate(0), "throughput is 0"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(
    traffic: Traffic, hosted: Hosted, rate: Rate, said: str
) -> None:
    with pytest.raises(QuantlabError, match=said):
        compare(traffic, hosted, rate, PRO)
