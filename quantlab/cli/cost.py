"""Compare the cost of a month's tokens on your own GPUs and through an API, and find the break-even
volume."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from quantlab.cli._common import Context, common, say
from quantlab.cli._numbers import Finite

if TYPE_CHECKING:
    from quantlab.catalogue.gpu import GpuSet
    from quantlab.catalogue.price import ApiPrice
    from quantlab.models.ingredients import Ingredients
    from quantlab.recommend.bill import Options, Paid, Placed, RigSpeed
    from quantlab.recommend.cost import CostComparison, Traffic

SHARE = Finite(0, 1)
PRICE = Finite(min=0, max=1e12)
POSITIVE = Finite(min=0, max=1e12, min_open=True)


class Wanted(NamedTuple):
    """The variant, the GPUs and the workload to compute the cost of."""

    variant: str
    rig: GpuSet
    context_tokens: int
    batch: int | None
    """None for as many sequences as fit."""
    anyway: bool
    """Whether to go on if the GPUs cannot hold the variant."""


@click.command()
@click.argument("model")
@click.argument("variant")
@click.option(
    "--gpu", "gpu_name", required=True, help="The GPUs that hold one copy of the model, such as h100:8."
)
@click.option(
    "--tokens-per-month",
    "tokens",
    required=True,
    help="Input and output tokens together, such as 5000M or 5B.",
)
@click.option(
    "--input-share", type=SHARE, default=0.0, show_default=True, help="Share of the tokens that are input."
)
@click.option(
    "--cached-share",
    type=SHARE,
    default=0.0,
    show_default=True,
    help="Share of the input that a prompt cache serves.",
)
@click.option("--price-per-hour", type=PRICE, help="Rent in dollars per GPU and hour.")
@click.option("--purchase-price", type=PRICE, help="Purchase price in dollars per GPU.")
@click.option("--depreciation-months", type=POSITIVE, help="Months over which the purchase is depreciated.")
@click.option("--power-kw", type=PRICE, help="Power draw in kilowatts per GPU.")
@click.option("--power-price", type=PRICE, help="Price of electricity in dollars per kWh.")
@click.option("--hosting", type=PRICE, help="Hosting in dollars per month for the whole rig.")
@click.option("--hours", type=POSITIVE, help="Hours of operation per month.")
@click.option(
    "--utilisation",
    type=Finite(0, 1, min_open=True),
    default=1.0,
    show_default=True,
    help="Share of the hours in which the GPUs are busy.",
)
@click.option(
    "--throughput",
    type=POSITIVE,
    help="Output tokens per second of the rig. Default: measured, else estimated.",
)
@click.option("--prefill-throughput", type=POSITIVE, help="Input tokens per second of the rig.")
@click.option(
    "--efficiency", type=Finite(0, 1, min_open=True), help="Share of the roofline that the engine reaches."
)
@click.option("--context", default="8k", show_default=True, help="Tokens in the cache of each sequence.")
@click.option(
    "--batch",
    type=click.IntRange(min=1, max=2**24),
    help="Sequences at the same time. Default: as many as fit, at most 256.",
)
@click.option(
    "--against-api", "api_name", help="The API's name in prices.yaml. Default: the API that serves MODEL."
)
@click.option(
    "--anyway",
    is_flag=True,
    help="Show the figures, as a hypothesis, even if the GPUs cannot hold the model.",
)
@common
def command(
    ctx: Context,
    model: str,
    variant: str,
    gpu_name: str,
    tokens: str,
    input_share: float,
    cached_share: float,
    price_per_hour: float | None,
    purchase_price: float | None,
    depreciation_months: float | None,
    power_kw: float | None,
    power_price: float | None,
    hosting: float | None,
    hours: float | None,
    utilisation: float,
    throughput: float | None,
    prefill_throughput: float | None,
    efficiency: float | None,
    context: str,
    batch: int | None,
    api_name: str | None,
    anyway: bool,
) -> dict[str, Any]:
    """Compare the cost of a month's tokens on your own GPUs and through an API, and find the break-even
    volume.

    MODEL is an alias, a hub repository, a folder or a config.json; VARIANT is METHOD-BITS, such as gptq-4.
    Prices come from prices.yaml, with dates and sources (add your own: $QUANTLAB_PRICES), or from the
    options. GPUs that cannot hold the variant are refused. The GPUs are paid for every hour, busy or not.

    \b
    quantlab cost deepseek-v4-flash gptq-4 --gpu h100:4 --tokens-per-month 5000M
    quantlab cost qwen3.5-27b awq-4 --gpu rtx-5090 --price-per-hour 0.7 --tokens-per-month 300M \\
        --input-share 0.8 --cached-share 0.5 --against-api deepseek-v4-flash
    quantlab cost deepseek-v4-pro gptq-4 --gpu h100:8 --tokens-per-month 5000M --throughput 15000 --anyway

    With --json: the comparison, "api", "assumptions" (each with its source), "throughput_kind" (given,
    measured or estimated), "fits" and "notes". """
    from quantlab.catalogue.gpu import parse_gpus
    from quantlab.catalogue.price import api_prices, gpu_prices
    from quantlab.catalogue.price import hosting as catalogue_hosting
    from quantlab.models.ingredients import ingredients
    from quantlab.parsing.amounts import parse_tokens
    from quantlab.parsing.sizes import parse_context
    from quantlab.recommend.bill import Options, api_price, bill, paid
    from quantlab.recommend.cost import Traffic

    rig, known = parse_gpus(gpu_name), ingredients(model)
    traffic = Traffic(parse_tokens(tokens), input_share, cached_share)
    own_figures = Options(
        price_per_hour=price_per_hour,
        purchase_price=purchase_price,
        depreciation_months=depreciation_months,
        power_kw=power_kw,
        power_price=power_price,
        hosting=hosting,
        hours=hours,
        utilisation=utilisation,
        throughput=throughput,
        prefill_throughput=prefill_throughput,
        efficiency=efficiency,
    )
    api = api_price(known.name, api_name, api_prices())
    payment = paid(rig, gpu_prices().get(rig.gpu.name), catalogue_hosting(), own_figures)
    wanted = Wanted(variant, rig, parse_context(context), batch, anyway)
    placed, output, notes = _output_of(known, wanted, own_figures)
    compared = bill(traffic, payment, output, api)
    notes += [
        *output.notes,
        *_notes(traffic, output, compared),
        *([f"the API's price: {api.doubt}"] if api.doubt else []),
    ]
    if not ctx.json:
        _print(known.name, variant, rig, traffic, payment, output, api, compared, notes)
    return _json(known.name, variant, rig, placed, payment, output, api, compared, notes)


def _output_of(
    known: Ingredients, wanted: Wanted, own_figures: Options
) -> tuple[Placed, RigSpeed, list[str]]:
    """Place the variant on the GPUs and compute its tokens per second.

    Raises CellFailure if it does not fit, unless --anyway was given.
    """
    from quantlab.architecture.counts import count
    from quantlab.errors import CellFailure
    from quantlab.names import parse_variant
    from quantlab.recommend.bill import MOST_AT_ONCE, speed
    from quantlab.recommend.candidates import Hardware, on_hardware
    from quantlab.recommend.measurements import local_evidence, measured_at

    placed = _place(known, wanted, wanted.batch or 1)
    if wanted.batch is None and placed.plan.largest_batch > 1:
        placed = _place(known, wanted, min(placed.plan.largest_batch, MOST_AT_ONCE))
    plan, notes = placed.plan, list(placed.plan.notes)
    if plan.verdict == "no":
        why = _too_small(known, wanted, placed)
        if not wanted.anyway:
            raise CellFailure("does_not_fit", f"{why}; --anyway shows the figures as a hypothesis")
        notes.insert(0, f"a hypothesis: {why}")
    elif plan.verdict != "fits":
        notes.insert(
            0,
            "it is not certain that it fits:"
            f" {_gib(plan.total_bytes, plan.total_high_bytes, plan.usable_bytes)}",
        )
    rig = wanted.rig
    measured = measured_at(
        on_hardware(local_evidence(Path()), Hardware(rig, rig.gpu.name)), known.name, wanted.variant
    )
    counted = known.counted or count(known.config or {})
    return placed, speed(parse_variant(wanted.variant), rig, placed, counted, measured, own_figures), notes


def _place(known: Ingredients, wanted: Wanted, batch: int) -> Placed:
    from quantlab.errors import CellFailure
    from quantlab.planning.fit import PlannedWorkload, plan_model
    from quantlab.recommend.bill import Placed

    workload = PlannedWorkload(context_tokens=wanted.context_tokens, batch=batch)
    plan = plan_model(
        known.config,
        name=known.name,
        rigs=[wanted.rig],
        workload=workload,
        methods=[wanted.variant],
        counted=known.counted,
    )
    first = plan.variants[0]
    if not first.rigs:
        raise CellFailure(
            "not_offered", first.reason or f"{wanted.variant} of {known.name} cannot be planned"
        )
    return Placed(first.rigs[0], workload)


def _too_small(known: Ingredients, wanted: Wanted, placed: Placed) -> str:
    from quantlab.planning.fit import plan_model

    rig, variant = wanted.rig, wanted.variant
    plan = plan_model(
        known.config, name=known.name, workload=placed.workload, methods=[variant], counted=known.counted
    )
    wider = plan.variants[0].rigs
    own = [f"{r.gpus} × {r.gpu}" for r in wider if r.gpu == rig.gpu.name]
    others = [
        f"{r.gpus} × {r.gpu}"
        for r in sorted(wider, key=lambda r: (r.gpus, r.usable_bytes))
        if r.gpu != rig.gpu.name
    ]
    holding = ", ".join([*own, *others][:3]) or "no set of the catalogue's GPUs"
    low, high, usable = placed.plan.total_bytes, placed.plan.total_high_bytes, placed.plan.usable_bytes
    return (
        f"{rig.count} × {rig.gpu.name} cannot hold {known.name} {variant}:"
        f" {(low - usable) * rig.count / 1e9:,.1f} GB are missing in total ({_gib(low, high, usable)} each);"
        f" it fits {holding}"
    )


def _gib(low: int, high: int, usable: int) -> str:
    return f"{low / 2**30:.1f} to {high / 2**30:.1f} GiB needed, {usable / 2**30:.1f} GiB usable"


def _notes(traffic: Traffic, output: RigSpeed, compared: CostComparison) -> list[str]:
    notes = []
    if traffic.input_share == 0:
        notes.append("all tokens are counted as output, the most expensive kind: set --input-share")
    elif output.rate.prefill_tokens_per_second is None:
        notes.append("reading the input is counted as taking no time: set --prefill-throughput")
    if compared.rigs > 1:
        notes.append(f"one rig cannot generate so many tokens: the cost is that of {compared.rigs} rigs")
    if not compared.breaks_even:
        notes.append(
            "one rig cannot generate enough tokens to pay for itself: the API is cheaper at any volume"
        )
    return notes


def _print(
    model: str,
    variant: str,
    rig: GpuSet,
    traffic: Traffic,
    payment: Paid,
    output: RigSpeed,
    api: ApiPrice,
    compared: CostComparison,
    notes: list[str],
) -> None:
    from quantlab.recommend.bill import amount

    shares, one = traffic.shares, compared.rig
    mixture = f"{shares.input:.0%} input, {shares.cached_input:.0%} cached input, {shares.output:.0%} output"
    say(
        f"{model} {variant} on {rig.count} × {rig.gpu.name}, {_million(traffic.tokens_per_month)} tokens a"
        f" month ({mixture})",
        bold=True,
    )
    say(
        f"own GPUs   {compared.self_hosting_dollars_per_month:>12,.0f} dollars a month   "
        f"{compared.self_hosting_dollars_per_million:,.3f} per million tokens"
    )
    say(
        f"           {compared.rigs} × (hardware {one.hardware:,.0f} + power {one.power:,.0f} + hosting"
        f" {one.hosting:,.0f})"
    )
    say(
        f"API        {compared.api_dollars_per_month:>12,.0f} dollars a month  "
        f" {compared.api_dollars_per_million:,.3f} per million tokens"
    )
    say(f"           {api.model}, {api.date}, {api.source}")
    say(f"cheaper    {compared.cheaper}")
    say(f"break-even {_million(compared.break_even_tokens_per_month):>12} tokens a month")
    say(
        f"capacity   {_million(compared.capacity_tokens_per_month):>12} tokens a month of one rig, throughput"
        f" {output.kind}"
    )
    say("\nassumptions")
    for each in (*payment.assumptions, *output.assumptions):
        say(f"  {each.name}: {amount(each)} ({each.source})")
    for note in notes:
        say(f"- {note}")


def _million(tokens: float) -> str:
    return f"{tokens / 1e6:,.0f}M" if tokens < float("inf") else "any number of"


def _json(
    model: str,
    variant: str,
    rig: GpuSet,
    placed: Placed,
    payment: Paid,
    output: RigSpeed,
    api: ApiPrice,
    compared: CostComparison,
    notes: list[str],
) -> dict[str, Any]:
    infinite = {"capacity_tokens_per_month", "break_even_tokens_per_month"}
    figures = {k: None if k in infinite and v == float("inf") else v for k, v in compared._asdict().items()}
    return {
        "model": model,
        "variant": variant,
        "gpu": rig.gpu.name,
        "gpus": rig.count,
        "verdict": placed.plan.verdict,
        "fits": placed.plan.fits,
        "context_tokens": placed.workload.context_tokens,
        "batch": placed.workload.batch,
        **figures,
        "rig": {**compared.rig._asdict(), "total": compared.rig.total},
        "api": api.model_dump(mode="json"),
        "throughput_kind": output.kind,
        "decode_tokens_per_second": output.rate.decode_tokens_per_second,
        "prefill_tokens_per_second": output.rate.prefill_tokens_per_second,
        "assumptions": [each._asdict() for each in (*payment.assumptions, *output.assumptions)],
        "notes": notes,
    }
