"""Compute what tokens cost on one's own GPUs and through an API.

Included: hire, or purchase with depreciation and power, hosting, the time that prefill and decoding take, and
the volume from which the GPUs are cheaper. Not included: people, traffic, taxes, the residual value of the
hardware. A rig costs the same whether it works or not; a second one is needed where one cannot make the
tokens."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from quantlab.errors import QuantlabError

MILLION = 1_000_000


class Traffic(NamedTuple):
    """Tokens of one month, and what they are."""

    tokens_per_month: float
    """Input and output together."""
    input_share: float = 0.0
    """Share of them that are input."""
    cached_share: float = 0.0
    """Share of the input that a prompt cache serves: it costs another price, and no prefill of one's own."""

    @property
    def shares(self) -> Shares:
        fresh = self.input_share * (1 - self.cached_share)
        return Shares(fresh, self.input_share * self.cached_share, 1 - self.input_share)


class Shares(NamedTuple):
    """Shares of all tokens; they add up to 1."""

    input: float
    cached_input: float
    output: float


class TokenPrices(NamedTuple):
    """What an API asks, in dollars per million tokens."""

    input: float
    output: float
    cached_input: float | None = None
    """None where the API has no other price for cached input: it is input."""

    def blended(self, shares: Shares) -> float:
        """Dollars per million tokens of this mixture."""
        cached = self.input if self.cached_input is None else self.cached_input
        return shares.input * self.input + shares.cached_input * cached + shares.output * self.output


class Hire(NamedTuple):
    """GPUs by the hour; the price includes their power."""

    dollars_per_gpu_hour: float


class Purchase(NamedTuple):
    """GPUs of one's own."""

    dollars_per_gpu: float
    depreciation_months: float
    kilowatts_per_gpu: float
    dollars_per_kilowatt_hour: float


class Rate(NamedTuple):
    """Tokens per second that one rig makes, all requests together."""

    decode_tokens_per_second: float
    prefill_tokens_per_second: float | None = None
    """None: input tokens are taken as free of time, which a capacity with input in it must say."""


class Hosted(NamedTuple):
    """One rig that serves the model."""

    gpus: int
    paid: Hire | Purchase
    hosting_dollars_per_month: float
    hours_per_month: float
    utilisation: float = 1.0
    """Share of the hours in which requests keep it busy."""


class Monthly(NamedTuple):
    """Dollars of one rig in one month."""

    hardware: float
    power: float
    hosting: float

    @property
    def total(self) -> float:
        return self.hardware + self.power + self.hosting


class CostComparison(NamedTuple):
    """One's own GPUs against an API, for the same tokens."""

    rig: Monthly
    """Of one rig."""
    rigs: int
    """How many rigs the tokens need."""
    self_hosting_dollars_per_month: float
    self_hosting_dollars_per_million: float
    api_dollars_per_month: float
    api_dollars_per_million: float
    """Of this mixture of tokens."""
    capacity_tokens_per_month: float
    """Of one rig, at this mixture."""
    break_even_tokens_per_month: float
    """Volume at which one rig costs what the API does."""
    breaks_even: bool
    """False where one rig cannot make so many tokens: then no number of rigs is cheaper than the API."""
    cheaper: Literal["self-hosting", "api", "neither"]


def monthly(hosted: Hosted) -> Monthly:
    """Dollars of one rig in a month, used or not: its full power is paid for every hour."""
    paid = hosted.paid
    if isinstance(paid, Hire):
        return Monthly(
            hosted.gpus * paid.dollars_per_gpu_hour * hosted.hours_per_month,
            0.0,
            hosted.hosting_dollars_per_month,
        )
    kilowatt_hours = hosted.gpus * paid.kilowatts_per_gpu * hosted.hours_per_month
    return Monthly(
        hosted.gpus * paid.dollars_per_gpu / paid.depreciation_months,
        kilowatt_hours * paid.dollars_per_kilowatt_hour,
        hosted.hosting_dollars_per_month,
    )


def capacity(hosted: Hosted, rate: Rate, shares: Shares) -> float:
    """Tokens of this mixture that one rig makes in a month: the busy seconds / the seconds that one token
    takes."""
    seconds = hosted.hours_per_month * 3600 * hosted.utilisation
    per_token = shares.output / rate.decode_tokens_per_second
    if rate.prefill_tokens_per_second:
        per_token += shares.input / rate.prefill_tokens_per_second
    return seconds / per_token if per_token else math.inf


def compare(traffic: Traffic, hosted: Hosted, rate: Rate, prices: TokenPrices) -> CostComparison:
    """Both ways of having the tokens made. Raises QuantlabError for sizes and shares that make no sense."""
    _check(traffic, hosted, rate, prices)
    shares, rig = traffic.shares, monthly(hosted)
    able = capacity(hosted, rate, shares)
    rigs = max(1, math.ceil(traffic.tokens_per_month / able))
    blended = prices.blended(shares)
    own, api = rigs * rig.total, traffic.tokens_per_month * blended / MILLION
    even = rig.total / blended * MILLION if blended else math.inf
    return CostComparison(
        rig=rig,
        rigs=rigs,
        self_hosting_dollars_per_month=own,
        self_hosting_dollars_per_million=own / traffic.tokens_per_month * MILLION,
        api_dollars_per_month=api,
        api_dollars_per_million=blended,
        capacity_tokens_per_month=able,
        break_even_tokens_per_month=even,
        breaks_even=even <= able,
        cheaper="neither" if own == api else "self-hosting" if own < api else "api",
    )


def _check(traffic: Traffic, hosted: Hosted, rate: Rate, prices: TokenPrices) -> None:
    paid = hosted.paid
    above_zero = {
        "tokens per month": traffic.tokens_per_month,
        "number of GPUs": hosted.gpus,
        "hours per month": hosted.hours_per_month,
        "utilisation": hosted.utilisation,
        "throughput": rate.decode_tokens_per_second,
        "depreciation": paid.depreciation_months if isinstance(paid, Purchase) else 1,
    }
    at_least_zero = {
        f"price of {name}": value for name, value in prices._asdict().items() if value is not None
    }
    at_least_zero |= {name.replace("_", " "): value for name, value in paid._asdict().items()}
    at_least_zero["hosting"] = hosted.hosting_dollars_per_month
    for name, value in above_zero.items():
        if not 0 < value < math.inf:
            raise QuantlabError(f"the {name} is {value:g}: give a number above 0")
    for name, value in at_least_zero.items():
        if not 0 <= value < math.inf:
            raise QuantlabError(f"the {name} is {value:g}: give 0 or more")
    for name, value in (
        ("input", traffic.input_share),
        ("cached", traffic.cached_share),
        ("utilised", hosted.utilisation),
    ):
        if not 0 <= value <= 1:
            raise QuantlabError(f"the {name} share is {value:g}: give a number from 0 to 1")
