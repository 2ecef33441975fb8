"""Compute the bill of one variant on one set of GPUs: its assumptions, and the comparison with an API.

Every assumption is named with its source: an option of the user's, a price of the catalogue with its date, a
measurement, or the roofline × an efficiency.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from quantlab.architecture.parameters import ParameterCount
from quantlab.catalogue.expectation import expectations
from quantlab.catalogue.gpu import GpuSet
from quantlab.catalogue.price import ApiPrice, Figure, GpuPrice, Hosting
from quantlab.errors import QuantlabError, unknown
from quantlab.names import Variant
from quantlab.numbers import significant
from quantlab.planning.plan import PlannedWorkload, RigPlan
from quantlab.planning.roofline import peak_operations_per_second
from quantlab.recommend.cost import (
    CostComparison,
    Hire,
    Hosted,
    Purchase,
    Rate,
    TokenPrices,
    Traffic,
    compare,
)
from quantlab.recommend.measurements import Measured

GIVEN = "as given"
MOST_AT_ONCE = 256
"""Requests at once where none are named: vLLM's default of max_num_seqs for years."""


class Assumption(NamedTuple):
    """One figure that the bill rests on."""

    name: str
    value: float
    unit: str
    source: str


class Paid(NamedTuple):
    """What is paid, and where the figures are from."""

    hosted: Hosted
    assumptions: tuple[Assumption, ...]


class RigSpeed(NamedTuple):
    """What the rig makes, and how that is known."""

    rate: Rate
    kind: str
    """given, measured or estimated."""
    assumptions: tuple[Assumption, ...]
    notes: tuple[str, ...] = ()


class Placed(NamedTuple):
    """The variant on the rig, and for which workload."""

    plan: RigPlan
    workload: PlannedWorkload


class Options(NamedTuple):
    """Figures of the user's own; None for the catalogue's."""

    price_per_hour: float | None = None
    purchase_price: float | None = None
    depreciation_months: float | None = None
    power_kw: float | None = None
    power_price: float | None = None
    hosting: float | None = None
    hours: float | None = None
    utilisation: float = 1.0
    throughput: float | None = None
    prefill_throughput: float | None = None
    efficiency: float | None = None


def paid(rig: GpuSet, prices: GpuPrice | None, constants: Hosting, options: Options) -> Paid:
    """What the GPUs cost: hired where a price per hour is given, else bought. Raises QuantlabError without
    any price."""
    if options.price_per_hour is not None and options.purchase_price is not None:
        raise QuantlabError("give --price-per-hour or --purchase-price, not both")
    hours = _figure("hours per month", options.hours, constants.hours_per_month, "h")
    known = prices or GpuPrice()
    bought = options.purchase_price is not None or (
        options.price_per_hour is None and known.purchase_dollars is not None
    )
    if bought:
        way, used, host = _purchase(rig, known, constants, options, hours)
    elif options.price_per_hour is not None or known.hourly_dollars is not None:
        way, used, host = _hire(known, options, hours)
    else:
        raise QuantlabError(
            f"no price of {rig.gpu.name} is known: give --price-per-hour or --purchase-price (per GPU), or"
            " write it into prices.yaml"
        )
    hosted = Hosted(rig.count, way, host.value, hours.value, options.utilisation)
    share = Assumption(
        "utilisation",
        options.utilisation,
        "of the hours",
        GIVEN if options.utilisation != 1 else "busy all the time",
    )
    return Paid(hosted, (*used, share))


class _Payment(NamedTuple):
    """How the GPUs are paid, the figures that it rests on, and the hosting among them."""

    way: Hire | Purchase
    used: tuple[Assumption, ...]
    host: Assumption


def _purchase(
    rig: GpuSet, known: GpuPrice, constants: Hosting, options: Options, hours: Assumption
) -> _Payment:
    price = _figure("price per GPU", options.purchase_price, known.purchase_dollars, "dollars")
    months = _figure("depreciation", options.depreciation_months, constants.depreciation_months, "months")
    kilowatts = _power(rig, constants, options)
    power = _figure("power", options.power_price, constants.power_dollars_per_kwh, "dollars per kWh")
    host = _figure("hosting", options.hosting, constants.hosting_dollars_per_month, "dollars per month")
    way = Purchase(price.value, months.value, kilowatts.value, power.value)
    return _Payment(way, (price, months, kilowatts, power, hours, host), host)


def _hire(known: GpuPrice, options: Options, hours: Assumption) -> _Payment:
    price = _figure("price per GPU and hour", options.price_per_hour, known.hourly_dollars, "dollars")
    source = GIVEN if options.hosting else "in the hire"
    host = Assumption("hosting", options.hosting or 0.0, "dollars per month", source)
    return _Payment(Hire(price.value), (price, hours, host), host)


def speed(
    variant: Variant,
    rig: GpuSet,
    placed: Placed,
    count: ParameterCount,
    measured: Sequence[Measured],
    options: Options,
) -> RigSpeed:
    """What the rig makes: as given, else the best measurement on this hardware, else the roofline × an
    efficiency.

    Raises QuantlabError where nothing is known.
    """
    if options.throughput is not None:
        rate = Rate(options.throughput, options.prefill_throughput)
        return RigSpeed(rate, "given", (Assumption("throughput", options.throughput, "tokens/s", GIVEN),))
    best = max((m for m in measured if m.throughput), key=_decoded, default=None)
    if best and best.throughput:
        measured_rate = best.throughput
        where = f"measured at batch {measured_rate.batch} ({best.source})"
        note = "measured with one engine process and no server: a server with batching makes more"
        rate = Rate(
            measured_rate.decode_tokens_per_second,
            options.prefill_throughput or measured_rate.prefill_tokens_per_second,
        )
        return RigSpeed(
            rate,
            "measured",
            (Assumption("throughput", measured_rate.decode_tokens_per_second, "tokens/s", where),),
            (note,),
        )
    ceiling = placed.plan.decode_ceiling_tokens_per_second
    if ceiling is None:
        why = placed.plan.why_no_ceiling
        raise QuantlabError(
            f"no throughput can be estimated, because {why}: give --throughput, tokens/s of the whole rig"
        )
    peak = peak_operations_per_second(rig.gpu, variant.method, variant.bits)
    return _roofline(ceiling, peak, rig, placed.workload, count, options)


def _roofline(
    ceiling: float,
    peak: float | None,
    rig: GpuSet,
    workload: PlannedWorkload,
    count: ParameterCount,
    options: Options,
) -> RigSpeed:
    known = expectations().efficiency
    share = options.efficiency if options.efficiency is not None else known.value
    why = GIVEN if options.efficiency is not None else known.source
    prefill = share * peak * rig.count / (2 * count.active_without_embedding) if peak else None
    rate = Rate(ceiling * share, options.prefill_throughput or prefill)
    at = f"batch {workload.batch} of {workload.context_tokens:,} tokens, see `quantlab plan`"
    used = [
        Assumption("roofline of decoding", ceiling, "tokens/s", f"computed at {at}"),
        Assumption("efficiency", share, "of the roofline", why),
        Assumption(
            "throughput", rate.decode_tokens_per_second, "tokens/s", "estimated: roofline × efficiency"
        ),
    ]
    if rate.prefill_tokens_per_second:
        source = (
            GIVEN
            if options.prefill_throughput
            else "estimated: peak arithmetic / (2 × active parameters) × efficiency"
        )
        used.append(Assumption("prefill throughput", rate.prefill_tokens_per_second, "tokens/s", source))
    return RigSpeed(
        rate,
        "estimated",
        tuple(used),
        ("the throughput is estimated, not measured: give --throughput where you know it",),
    )


def api_price(model: str, name: str | None, known: dict[str, ApiPrice]) -> ApiPrice:
    """The API that is compared with: the one named, else the one that serves the model. Raises
    QuantlabError."""
    if name is not None:
        if name.lower() not in known:
            raise unknown("API price", name, known, "or write it into prices.yaml")
        return known[name.lower()]
    serving = next((price for price in known.values() if price.alias == model), None)
    if serving is None:
        raise QuantlabError(
            f"no API price of {model} is known: name one with --against-api ({', '.join(sorted(known))})"
        )
    return serving


def bill(traffic: Traffic, what: Paid, made: RigSpeed, api: ApiPrice) -> CostComparison:
    """The comparison. Raises QuantlabError for sizes and shares that make no sense."""
    return compare(
        traffic,
        what.hosted,
        made.rate,
        TokenPrices(api.input_dollars, api.output_dollars, api.cached_input_dollars),
    )


def _figure(name: str, given: float | None, known: Figure | None, unit: str) -> Assumption:
    if given is not None:
        return Assumption(name, given, unit, GIVEN)
    if known is None:
        raise QuantlabError(f"no {name} is known: give it as an option")
    doubt = f"; {known.doubt}" if known.doubt else ""
    return Assumption(name, known.value, unit, f"{known.date}, {known.source}{doubt}")


def _power(rig: GpuSet, constants: Hosting, options: Options) -> Assumption:
    watts = rig.gpu.power_watts
    if options.power_kw is None and watts:
        return Assumption("power per GPU", watts / 1000, "kW", f"of {rig.gpu.name}, in the catalogue")
    return _figure("power per GPU", options.power_kw, constants.power_kw_per_gpu, "kW")


def _decoded(measured: Measured) -> tuple[float, str]:
    return (measured.throughput.decode_tokens_per_second if measured.throughput else 0.0, measured.source)


def amount(assumption: Assumption) -> str:
    """An assumption's figure with its unit."""
    shown = significant(assumption.value, 4)
    return f"{shown.rstrip('0').rstrip('.') if '.' in shown else shown} {assumption.unit}"
