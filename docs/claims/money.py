"""Claims about prices, and the worked example of an article: 8 × H100 against 3.48 dollars per million output
tokens."""

from __future__ import annotations

from collections.abc import Iterable

from claims import DOUBTED, PARTLY, RIGHT, UNCHECKED, WRONG, Claim, agree
from claims.figures import gigabytes, on
from quantlab.catalogue.gpu import GpuSet, find_gpu
from quantlab.catalogue.price import api_prices, gpu_prices, hosting
from quantlab.numbers import listing
from quantlab.recommend.bill import Options, paid
from quantlab.recommend.cost import CostComparison, Rate, TokenPrices, Traffic, compare

_COMMAND = (
    "`quantlab cost deepseek-v4-pro gptq-4 --gpu h100:8 --tokens-per-month 5000M --throughput 15000 --anyway`"
)


def example() -> CostComparison:
    """The article's example, from the catalogue's prices: 5,000M output tokens a month, 15,000 tokens/s."""
    hosted = paid(GpuSet(find_gpu("h100"), 8), gpu_prices()["h100-sxm-80gb"], hosting(), Options()).hosted
    return compare(Traffic(5_000e6), hosted, Rate(15_000), _prices("deepseek-v4-pro"))


def _prices(name: str) -> TokenPrices:
    price = api_prices()[name]
    return TokenPrices(price.input_dollars, price.output_dollars, price.cached_input_dollars)


def worked_example() -> Iterable[Claim]:
    """Its figures one by one, to the dollar."""
    found = example()
    own, api, even = (
        found.self_hosting_dollars_per_month,
        found.api_dollars_per_month,
        found.break_even_tokens_per_month / 1e6,
    )
    yield Claim(
        "5,000M output tokens a month of V4-Pro cost 17,400 dollars through the API.",
        f"{api:,.0f} dollars.",
        _to_one(17_400, api),
        _COMMAND,
    )
    yield Claim(
        "The same tokens cost about 9,653 dollars on 8 × H100.",
        f"{own:,.0f} dollars: hardware {found.rig.hardware:,.0f}, power {found.rig.power:,.0f}, hosting"
        f" {found.rig.hosting:,.0f}.",
        _to_one(9_653, own),
        _COMMAND,
    )
    yield Claim(
        "Both cost the same at about 2,774M tokens a month.",
        f"{even:,.0f}M tokens.",
        _to_one(2_774, even),
        _COMMAND,
    )
    able = found.capacity_tokens_per_month / 1e6
    yield Claim(
        "At 15,000 tokens/s the rig makes 38,880M tokens a month.",
        f"{able:,.0f}M tokens.",
        _to_one(38_880, able),
        _COMMAND,
    )
    rig, least = on("deepseek-v4-pro", "gptq-4", "h100", 8), gigabytes("deepseek-v4-pro", "gptq-4")
    there = rig.usable_bytes * 8 / 1e9
    yield Claim(
        "8 × H100 serve V4-Pro at about 15,000 tokens/s.",
        f"They cannot hold it: gptq-4 takes {least:,.1f} GB, the GPUs have {there:,.1f} GB. "
        "The figures above are of a rig that cannot run the model.",
        WRONG if rig.verdict == "no" else UNCHECKED,
        "`quantlab cost deepseek-v4-pro gptq-4 --gpu h100:8 --tokens-per-month 5000M` refuses it",
    )


def _to_one(said: float, found: float) -> str:
    """A figure that somebody computed is right to the unit, or it is wrong."""
    return RIGHT if round(found) == said else WRONG


def prices() -> Iterable[Claim]:
    """Prices and what follows from them."""
    output = {name: api_prices()[name].output_dollars for name in ("deepseek-v4-pro", "deepseek-v4-flash")}
    dear = api_prices()["gpt-5.5"].output_dollars
    flash_vs_opus = api_prices()["claude-opus-4.7"].output_dollars / output["deepseek-v4-flash"]
    found = (dear / output["deepseek-v4-pro"], dear / output["deepseek-v4-flash"], flash_vs_opus)
    yield Claim(
        "V4-Pro is 8.6 times cheaper than GPT-5.5, V4-Flash 107 times, and 89 times cheaper than Opus 4.7.",
        f"{listing(f'{ratio:.1f}' for ratio in found)}, of the output prices alone.",
        (
            RIGHT
            if all(agree(said, ratio) == RIGHT for said, ratio in zip((8.6, 107, 89), found, strict=True))
            else PARTLY
        ),
        "`api_prices()`: output_dollars",
    )
    names = ("gpt-5.5", "claude-opus-4.7", "deepseek-v4-pro", "deepseek-v4-flash", "kimi-k2.6")
    both = [(p := api_prices()[name]).input_dollars * 1000 + p.output_dollars * 1000 for name in names]
    alone = [api_prices()[name].output_dollars * 1000 for name in names]
    said = (35_000, 40_000, 4_060, 320, 2_920)
    yield Claim(
        f"1B tokens cost {listing(f'{value:,}' for value in said)} dollars ({', '.join(names)}).",
        f"That is 1B of input and 1B of output: {listing(f'{value:,.0f}' for value in both)}. 1B of output"
        f" alone costs {listing(f'{value:,.0f}' for value in alone)}.",
        WRONG if [round(value) for value in both] == list(said) else PARTLY,
        "`api_prices()`: (input_dollars + output_dollars) × 1,000",
    )
    for name, words in (
        ("deepseek-v4-flash", "V4-Flash costs 0.04 dollars per million input tokens."),
        ("deepseek-v4-pro", "V4-Pro costs 0.58 dollars per million input tokens and 3.48 of output."),
        ("claude-opus-4.7", "Claude Opus 4.7 costs 15 dollars per million input tokens."),
    ):
        price = api_prices()[name]
        yield Claim(
            words,
            f"Quoted in the catalogue ({price.date}), with a doubt: {price.doubt}.",
            DOUBTED if price.doubt else UNCHECKED,
            f"`api_prices()['{name}'].doubt`",
        )
