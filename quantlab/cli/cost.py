"""What a month of tokens costs on one's own GPUs and through an API, and from which volume the GPUs are cheaper."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantlab.cli._common import Context, common, say
from quantlab.cli._numbers import Finite

if TYPE_CHECKING:
    from quantlab.catalogue.gpu import GpuSet
    from quantlab.catalogue.price import ApiPrice
    from quantlab.planning.bill import Options, Paid, Placed, Speed
    from quantlab.planning.cost import Comparison, Traffic
    from quantlab.planning.resolve import Ingredients

SHARE = Finite(0, 1)
PRICE = Finite(min=0, max=1e12)
POSITIVE = Finite(min=0, max=1e12, min_open=True)


@click.command()
@click.argument("model")
@click.argument("variant")
@click.option("--gpu", "gpu_name", required=True, help="The GPUs that hold one copy, such as h100:8.")
@click.option("--tokens-per-month", "tokens", required=True, help="Input and output together, such as 5000M or 5B.")
@click.option("--input-share", type=SHARE, default=0.0, show_default=True, help="Share of the tokens that are input.")
@click.option("--cached-share", type=SHARE, default=0.0, show_default=True, help="Share of the input that a prompt cache serves.")
@click.option("--price-per-hour", type=PRICE, help="Dollars per GPU and hour, hired.")
@click.option("--purchase-price", type=PRICE, help="Dollars per GPU, bought.")
@click.option("--depreciation-months", type=POSITIVE, help="Months over which the purchase is written off.")
@click.option("--power-kw", type=PRICE, help="Kilowatts per GPU.")
@click.option("--power-price", type=PRICE, help="Dollars per kWh.")
@click.option("--hosting", type=PRICE, help="Dollars per month for the whole rig.")
@click.option("--hours", type=POSITIVE, help="Hours per month.")
@click.option("--utilisation", type=Finite(0, 1, min_open=True), default=1.0, show_default=True, help="Share of busy hours.")
@click.option("--throughput", type=POSITIVE, help="Output tokens per second of the rig; default: measured, else estimated.")
@click.option("--prefill-throughput", type=POSITIVE, help="Input tokens per second of the rig.")
@click.option("--efficiency", type=Finite(0, 1, min_open=True), help="Share of the roofline that is reached.")
@click.option("--context", default="8k", show_default=True, help="Tokens in each sequence's cache.")
@click.option("--batch", type=click.IntRange(min=1, max=2**24), help="Sequences at once; default: as many as fit, at most 256.")
@click.option("--against-api", "api_name", help="The API's name in prices.yaml; default: the one that serves MODEL.")
@click.option("--anyway", is_flag=True, help="Show the figures of a rig that cannot hold the model, as a hypothesis.")
@common
def command(ctx: Context, model: str, variant: str, **options: Any) -> dict[str, Any]:
    """What a month of tokens costs on one's own GPUs and through an API, and from which volume the GPUs are cheaper.

    MODEL is an alias, a hub repository, a folder or a config.json; VARIANT is method-bits, such as gptq-4. Prices come
    from prices.yaml with their dates and sources (add your own: $QUANTLAB_PRICES), or from options. GPUs that cannot hold
    the variant are refused. The GPUs are paid for every hour, busy or not.

    \b
    quantlab cost deepseek-v4-flash gptq-4 --gpu h100:4 --tokens-per-month 5000M
    quantlab cost qwen3.5-27b awq-4 --gpu rtx-5090 --price-per-hour 0.7 --tokens-per-month 300M \\
        --input-share 0.8 --cached-share 0.5 --against-api deepseek-v4-flash
    quantlab cost deepseek-v4-pro gptq-4 --gpu h100:8 --tokens-per-month 5000M --throughput 15000 --anyway

    With --json: the comparison, "api", "assumptions" (each with its source), "throughput_kind" (given, measured or
    estimated), "fits" and "notes".
    """
    from quantlab.catalogue.gpu import parse_gpus
    from quantlab.catalogue.price import api_prices, gpu_prices, hosting
    from quantlab.planning.amounts import parse_tokens
    from quantlab.planning.bill import Options, api_price, bill, paid
    from quantlab.planning.cost import Traffic
    from quantlab.planning.resolve import ingredients

    rig, found = parse_gpus(options["gpu_name"]), ingredients(model)
    traffic = Traffic(parse_tokens(options["tokens"]), options["input_share"], options["cached_share"])
    chosen = Options(**{name: options[name] for name in Options._fields})
    api = api_price(found.name, options["api_name"], api_prices())
    what = paid(rig, gpu_prices().get(rig.gpu.name), hosting(), chosen)
    placed, made, notes = _made(found, variant, rig, options, chosen)
    compared = bill(traffic, what, made, api)
    notes += [*made.notes, *_about(traffic, made, compared), *([f"the API's price: {api.doubt}"] if api.doubt else [])]
    if not ctx.json:
        _print(found.name, variant, rig, traffic, what, made, api, compared, notes)
    return _json(found.name, variant, rig, placed, what, made, api, compared, notes)


def _made(found: Ingredients, variant: str, rig: GpuSet, options: dict[str, Any], chosen: Options) -> tuple[Placed, Speed, list[str]]:
    """The variant on the rig, and what that makes. Raises CellFailure where it does not fit, unless told to go on."""
    from quantlab.errors import CellFailure
    from quantlab.names import parse_variant
    from quantlab.planning.bill import MOST_AT_ONCE, speed
    from quantlab.planning.candidates import Hardware, on_hardware
    from quantlab.planning.counts import count
    from quantlab.planning.evidence import local_evidence, measured_at
    from quantlab.planning.sizes import parse_context

    context = parse_context(options["context"])
    placed = _place(found, variant, rig, context, options["batch"] or 1)
    if options["batch"] is None and placed.plan.largest_batch > 1:
        placed = _place(found, variant, rig, context, min(placed.plan.largest_batch, MOST_AT_ONCE))
    plan, notes = placed.plan, list(placed.plan.notes)
    if plan.verdict == "no":
        why = _too_small(found, variant, rig, placed)
        if not options["anyway"]:
            raise CellFailure("does_not_fit", f"{why}; --anyway shows the figures as a hypothesis")
        notes.insert(0, f"a hypothesis: {why}")
    elif plan.verdict != "fits":
        notes.insert(0, f"it is not certain that it fits: {_gib(plan.total_bytes, plan.total_high_bytes, plan.usable_bytes)}")
    own = measured_at(on_hardware(local_evidence(Path()), Hardware(rig, rig.gpu.name)), found.name, variant)
    counted = found.counted or count(found.config or {})
    return placed, speed(parse_variant(variant), rig, placed, counted, own, chosen), notes


def _place(found: Ingredients, variant: str, rig: GpuSet, context: int, batch: int) -> Placed:
    from quantlab.errors import CellFailure
    from quantlab.planning.bill import Placed
    from quantlab.planning.fit import Workload, plan_model

    workload = Workload(context_tokens=context, batch=batch)
    plan = plan_model(found.config, name=found.name, rigs=[rig], workload=workload, methods=[variant], counted=found.counted)
    first = plan.variants[0]
    if not first.rigs:
        raise CellFailure("not_offered", first.reason or f"{variant} of {found.name} cannot be planned")
    return Placed(first.rigs[0], workload)


def _too_small(found: Ingredients, variant: str, rig: GpuSet, placed: Placed) -> str:
    from quantlab.planning.fit import plan_model

    plan = plan_model(found.config, name=found.name, workload=placed.workload, methods=[variant], counted=found.counted)
    wider = plan.variants[0].rigs
    own = [f"{r.gpus} × {r.gpu}" for r in wider if r.gpu == rig.gpu.name]
    others = [f"{r.gpus} × {r.gpu}" for r in sorted(wider, key=lambda r: (r.gpus, r.usable_bytes)) if r.gpu != rig.gpu.name]
    holding = ", ".join([*own, *others][:3]) or "no set of the catalogue's GPUs"
    low, high, usable = placed.plan.total_bytes, placed.plan.total_high_bytes, placed.plan.usable_bytes
    return (
        f"{rig.count} × {rig.gpu.name} cannot hold {found.name} {variant}: {(low - usable) * rig.count / 1e9:,.1f} GB are lacking over all "
        f"of them ({_gib(low, high, usable)} each); it fits {holding}"
    )


def _gib(low: int, high: int, usable: int) -> str:
    return f"{low / 2**30:.1f} to {high / 2**30:.1f} GiB needed, {usable / 2**30:.1f} GiB there"


def _about(traffic: Traffic, made: Speed, compared: Comparison) -> list[str]:
    notes = []
    if traffic.input_share == 0:
        notes.append("all tokens are taken as output, the dearest kind: --input-share says otherwise")
    elif made.rate.prefill_tokens_per_second is None:
        notes.append("reading the input is taken as free of time: give --prefill-throughput")
    if compared.rigs > 1:
        notes.append(f"one rig cannot make so many tokens: {compared.rigs} of them are counted")
    if not compared.breaks_even:
        notes.append("one rig cannot make as many tokens as it would have to: however many there are, the API is cheaper")
    return notes


def _print(
    model: str,
    variant: str,
    rig: GpuSet,
    traffic: Traffic,
    what: Paid,
    made: Speed,
    api: ApiPrice,
    compared: Comparison,
    notes: list[str],
) -> None:
    from quantlab.planning.bill import amount

    shares, one = traffic.shares, compared.rig
    mixture = f"{shares.input:.0%} input, {shares.cached_input:.0%} cached input, {shares.output:.0%} output"
    say(f"{model} {variant} on {rig.count} × {rig.gpu.name}, {_million(traffic.tokens_per_month)} tokens a month ({mixture})", bold=True)
    say(
        f"own GPUs   {compared.self_hosting_dollars_per_month:>12,.0f} dollars a month   "
        f"{compared.self_hosting_dollars_per_million:,.3f} per million tokens"
    )
    say(f"           {compared.rigs} × (hardware {one.hardware:,.0f} + power {one.power:,.0f} + hosting {one.hosting:,.0f})")
    say(f"API        {compared.api_dollars_per_month:>12,.0f} dollars a month   {compared.api_dollars_per_million:,.3f} per million tokens")
    say(f"           {api.model}, {api.date}, {api.source}")
    say(f"cheaper    {compared.cheaper}")
    say(f"break-even {_million(compared.break_even_tokens_per_month):>12} tokens a month")
    say(f"capacity   {_million(compared.capacity_tokens_per_month):>12} tokens a month of one rig, throughput {made.kind}")
    say("\nresting on")
    for each in (*what.assumptions, *made.assumptions):
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
    what: Paid,
    made: Speed,
    api: ApiPrice,
    compared: Comparison,
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
        "throughput_kind": made.kind,
        "decode_tokens_per_second": made.rate.decode_tokens_per_second,
        "prefill_tokens_per_second": made.rate.prefill_tokens_per_second,
        "assumptions": [each._asdict() for each in (*what.assumptions, *made.assumptions)],
        "notes": notes,
    }
