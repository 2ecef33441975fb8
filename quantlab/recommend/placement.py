"""Place one variant on the GPUs that the user named, and compute its tokens per second there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from quantlab.architecture.counts import count
from quantlab.catalogue.gpu import GpuSet
from quantlab.errors import CellFailure
from quantlab.names import parse_variant
from quantlab.planning.fit import PlannedWorkload, plan_model
from quantlab.recommend.bill import MOST_AT_ONCE, Options, Placed, RigSpeed, speed
from quantlab.recommend.measurements import Measured

if TYPE_CHECKING:
    from quantlab.models.ingredients import Ingredients


class Placement(NamedTuple):
    """The variant, the GPUs and the workload to compute the cost of."""

    variant: str
    rig: GpuSet
    context_tokens: int
    batch: int | None
    """None for as many sequences as fit."""
    anyway: bool
    """Whether to go on if the GPUs cannot hold the variant."""


class Output(NamedTuple):
    """The variant on the GPUs, its tokens per second, and notes for a person."""

    placed: Placed
    speed: RigSpeed
    notes: tuple[str, ...]


def output_of(
    known: Ingredients, placement: Placement, measured: Sequence[Measured], own_figures: Options
) -> Output:
    """Place the variant on the GPUs and compute its tokens per second.

    Raises CellFailure if it does not fit, unless `placement.anyway` is set.
    """
    placed = _place(known, placement, placement.batch or 1)
    if placement.batch is None and placed.plan.largest_batch > 1:
        placed = _place(known, placement, min(placed.plan.largest_batch, MOST_AT_ONCE))
    notes = [*_doubts(known, placement, placed), *placed.plan.notes]
    counted = known.counted or count(known.config or {})
    output = speed(parse_variant(placement.variant), placement.rig, placed, counted, measured, own_figures)
    return Output(placed, output, tuple(notes))


def _doubts(known: Ingredients, placement: Placement, placed: Placed) -> list[str]:
    """Say where it does not fit, or may not. Raises CellFailure."""
    plan = placed.plan
    if plan.verdict == "no":
        why = _too_small(known, placement, placed)
        if not placement.anyway:
            raise CellFailure("does_not_fit", f"{why}; --anyway shows the figures as a hypothesis")
        return [f"a hypothesis: {why}"]
    if plan.verdict != "fits":
        needed = _gib(plan.total_bytes, plan.total_high_bytes, plan.usable_bytes)
        return [f"it is not certain that it fits: {needed}"]
    return []


def _place(known: Ingredients, placement: Placement, batch: int) -> Placed:
    workload = PlannedWorkload(context_tokens=placement.context_tokens, batch=batch)
    plan = plan_model(
        known.config,
        name=known.name,
        rigs=[placement.rig],
        workload=workload,
        methods=[placement.variant],
        counted=known.counted,
        file=known.file,
    )
    first = plan.variants[0]
    if not first.rigs:
        raise CellFailure(
            "not_offered", first.reason or f"{placement.variant} of {known.name} cannot be planned"
        )
    return Placed(first.rigs[0], workload)


def _too_small(known: Ingredients, placement: Placement, placed: Placed) -> str:
    rig, variant = placement.rig, placement.variant
    plan = plan_model(
        known.config,
        name=known.name,
        workload=placed.workload,
        methods=[variant],
        counted=known.counted,
        file=known.file,
    )
    wider = plan.variants[0].rigs
    of_this_gpu = [f"{r.gpus} × {r.gpu}" for r in wider if r.gpu == rig.gpu.name]
    of_others = [
        f"{r.gpus} × {r.gpu}"
        for r in sorted(wider, key=lambda r: (r.gpus, r.usable_bytes))
        if r.gpu != rig.gpu.name
    ]
    holding = ", ".join([*of_this_gpu, *of_others][:3]) or "no set of the catalogue's GPUs"
    low, high, usable = placed.plan.total_bytes, placed.plan.total_high_bytes, placed.plan.usable_bytes
    return (
        f"{rig.count} × {rig.gpu.name} cannot hold {known.name} {variant}:"
        f" {(low - usable) * rig.count / 1e9:,.1f} GB are missing in total ({_gib(low, high, usable)} each);"
        f" it fits {holding}"
    )


def _gib(low: int, high: int, usable: int) -> str:
    return f"{low / 2**30:.1f} to {high / 2**30:.1f} GiB needed, {usable / 2**30:.1f} GiB usable"
