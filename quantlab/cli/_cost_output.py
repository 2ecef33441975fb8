"""Show what a month's tokens cost, as text for a person and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from quantlab.cli._common import say

if TYPE_CHECKING:
    from quantlab.catalogue.gpu import GpuSet
    from quantlab.catalogue.price import ApiPrice
    from quantlab.recommend.bill import Paid, Placed, RigSpeed
    from quantlab.recommend.cost import CostComparison, Traffic

INFINITE = ("capacity_tokens_per_month", "break_even_tokens_per_month")
"""Fields that can be infinite, for which JSON has no number."""


class Cost(NamedTuple):
    """All that `quantlab cost` computed."""

    model: str
    variant: str
    rig: GpuSet
    traffic: Traffic
    placed: Placed
    payment: Paid
    output: RigSpeed
    api: ApiPrice
    compared: CostComparison
    notes: list[str]


def notes_on(traffic: Traffic, output: RigSpeed, compared: CostComparison) -> list[str]:
    """Say what the comparison assumes of the traffic and how many sets of GPUs it takes."""
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


def show(cost: Cost) -> None:
    """Print the comparison, its assumptions and its notes."""
    from quantlab.recommend.bill import amount

    _show_totals(cost)
    say("\nassumptions")
    for each in (*cost.payment.assumptions, *cost.output.assumptions):
        say(f"  {each.name}: {amount(each)} ({each.source})")
    for note in cost.notes:
        say(f"- {note}")


def _show_totals(cost: Cost) -> None:
    shares, compared, rig = cost.traffic.shares, cost.compared, cost.rig
    mixture = f"{shares.input:.0%} input, {shares.cached_input:.0%} cached input, {shares.output:.0%} output"
    say(
        f"{cost.model} {cost.variant} on {rig.count} × {rig.gpu.name},"
        f" {_million(cost.traffic.tokens_per_month)} tokens a month ({mixture})",
        bold=True,
    )
    say(
        f"own GPUs   {compared.self_hosting_dollars_per_month:>12,.0f} dollars a month   "
        f"{compared.self_hosting_dollars_per_million:,.3f} per million tokens"
    )
    say(
        f"           {compared.rigs} × (hardware {compared.rig.hardware:,.0f} + power"
        f" {compared.rig.power:,.0f} + hosting {compared.rig.hosting:,.0f})"
    )
    say(
        f"API        {compared.api_dollars_per_month:>12,.0f} dollars a month  "
        f" {compared.api_dollars_per_million:,.3f} per million tokens"
    )
    say(f"           {cost.api.model}, {cost.api.date}, {cost.api.source}")
    say(f"cheaper    {compared.cheaper}")
    say(f"break-even {_million(compared.break_even_tokens_per_month):>12} tokens a month")
    say(
        f"capacity   {_million(compared.capacity_tokens_per_month):>12} tokens a month of one rig, throughput"
        f" {cost.output.kind}"
    )


def _million(tokens: float) -> str:
    return f"{tokens / 1e6:,.0f}M" if tokens < float("inf") else "any number of"


def as_json(cost: Cost) -> dict[str, Any]:
    """The object that `--json` prints."""
    compared, output, workload = cost.compared, cost.output, cost.placed.workload
    figures = {
        name: None if name in INFINITE and value == float("inf") else value
        for name, value in compared._asdict().items()
    }
    return {
        "model": cost.model,
        "variant": cost.variant,
        "gpu": cost.rig.gpu.name,
        "gpus": cost.rig.count,
        "verdict": cost.placed.plan.verdict,
        "fits": cost.placed.plan.fits,
        "context_tokens": workload.context_tokens,
        "batch": workload.batch,
        **figures,
        "rig": {**compared.rig._asdict(), "total": compared.rig.total},
        "api": cost.api.model_dump(mode="json"),
        "throughput_kind": output.kind,
        "decode_tokens_per_second": output.rate.decode_tokens_per_second,
        "prefill_tokens_per_second": output.rate.prefill_tokens_per_second,
        "assumptions": [each._asdict() for each in (*cost.payment.assumptions, *output.assumptions)],
        "notes": cost.notes,
    }
