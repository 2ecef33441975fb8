"""Compare the cost of a month's tokens on your own GPUs and through an API, and find the break-even
volume."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantlab.cli._common import Context, common
from quantlab.cli._cost_options import MonthOptions, figure_options, month_options
from quantlab.cli._groups import batch_option, context_option

if TYPE_CHECKING:
    from quantlab.cli._cost_output import Cost
    from quantlab.recommend.bill import Options
    from quantlab.recommend.placement import Placement


@click.command()
@click.argument("model")
@click.argument("variant")
@click.option(
    "--gpu", "gpu_name", required=True, help="The GPUs that hold one copy of the model, such as h100:8."
)
@month_options
@figure_options
@context_option()
@batch_option(None, " Default: as many as fit, at most 256.")
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
    month: MonthOptions,
    own_figures: Options,
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
    from quantlab.cli._cost_output import as_json, show
    from quantlab.parsing.sizes import parse_context
    from quantlab.recommend.placement import Placement

    placement = Placement(variant, parse_gpus(gpu_name), parse_context(context), batch, anyway)
    cost = _cost(model, placement, month, own_figures, api_name)
    if not ctx.json:
        show(cost)
    return as_json(cost)


def _cost(
    model: str, placement: Placement, month: MonthOptions, own_figures: Options, api_name: str | None
) -> Cost:
    from quantlab.catalogue.price import api_prices, gpu_prices, hosting
    from quantlab.cli._cost_output import Cost, notes_on
    from quantlab.models.ingredients import ingredients
    from quantlab.parsing.amounts import parse_tokens
    from quantlab.recommend.bill import api_price, bill, paid
    from quantlab.recommend.candidates import Hardware, on_hardware
    from quantlab.recommend.cost import Traffic
    from quantlab.recommend.measurements import local_evidence, measured_at
    from quantlab.recommend.placement import output_of

    rig, known = placement.rig, ingredients(model)
    traffic = Traffic(parse_tokens(month.tokens_per_month), month.input_share, month.cached_share)
    api = api_price(known.name, api_name, api_prices())
    payment = paid(rig, gpu_prices().get(rig.gpu.name), hosting(), own_figures)
    evidence = on_hardware(local_evidence(Path()), Hardware(rig, rig.gpu.name))
    placed, output, notes = output_of(
        known, placement, measured_at(evidence, known.name, placement.variant), own_figures
    )
    compared = bill(traffic, payment, output, api)
    said = [
        *notes,
        *output.notes,
        *notes_on(traffic, output, compared),
        *([f"the API's price: {api.doubt}"] if api.doubt else []),
    ]
    return Cost(known.name, placement.variant, rig, traffic, placed, payment, output, api, compared, said)
