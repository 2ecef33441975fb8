"""Define the options of `quantlab cost`: the tokens of a month, and figures of the user's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import click

from quantlab.cli._groups import grouped
from quantlab.cli._numbers import Finite

if TYPE_CHECKING:
    from quantlab.recommend.bill import Options

SHARE, POSITIVE_SHARE = Finite(0, 1), Finite(0, 1, min_open=True)
PRICE = Finite(min=0, max=1e12)
POSITIVE = Finite(min=0, max=1e12, min_open=True)


class MonthOptions(NamedTuple):
    """The tokens of a month."""

    tokens_per_month: str
    input_share: float
    cached_share: float


def _own_figures(**values: Any) -> Options:
    from quantlab.recommend.bill import Options

    return Options(**values)


month_options = grouped(
    "month",
    MonthOptions,
    click.option(
        "--tokens-per-month", required=True, help="Input and output tokens together, such as 5000M or 5B."
    ),
    click.option(
        "--input-share",
        type=SHARE,
        default=0.0,
        show_default=True,
        help="Share of the tokens that are input.",
    ),
    click.option(
        "--cached-share",
        type=SHARE,
        default=0.0,
        show_default=True,
        help="Share of the input that a prompt cache serves.",
    ),
)

figure_options = grouped(
    "own_figures",
    _own_figures,
    click.option("--price-per-hour", type=PRICE, help="Rent in dollars per GPU and hour."),
    click.option("--purchase-price", type=PRICE, help="Purchase price in dollars per GPU."),
    click.option(
        "--depreciation-months", type=POSITIVE, help="Months over which the purchase is depreciated."
    ),
    click.option("--power-kw", type=PRICE, help="Power draw in kilowatts per GPU."),
    click.option("--power-price", type=PRICE, help="Price of electricity in dollars per kWh."),
    click.option("--hosting", type=PRICE, help="Hosting in dollars per month for all GPUs."),
    click.option("--hours", type=POSITIVE, help="Hours of operation per month."),
    click.option(
        "--utilisation",
        type=POSITIVE_SHARE,
        default=1.0,
        show_default=True,
        help="Share of the hours in which the GPUs are busy.",
    ),
    click.option(
        "--throughput",
        type=POSITIVE,
        help="Output tokens per second of all GPUs. Default: measured, else estimated.",
    ),
    click.option("--prefill-throughput", type=POSITIVE, help="Input tokens per second of all GPUs."),
    click.option(
        "--efficiency",
        type=POSITIVE_SHARE,
        help="Share of the roofline that the engine reaches, for an estimated throughput.",
    ),
)
