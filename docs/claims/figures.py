"""What the planner and the catalogue say of a model, each in one call. Nothing here is a figure of its
own."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from quantlab.architecture.counts import ParameterCount
from quantlab.architecture.kvcache import Policy, cache_bytes
from quantlab.architecture.shape import Architecture, read_architecture
from quantlab.catalogue import entries
from quantlab.catalogue.gpu import GpuSet, find_gpu
from quantlab.models.target import target
from quantlab.planning.fit import PlannedWorkload, plan_model
from quantlab.planning.parallel import why_not_parallel
from quantlab.planning.plan import RigPlan, VariantPlan

CONTEXT = 8192
"""Tokens of one sequence where a claim names no context."""


class Parameters(NamedTuple):
    """In billions."""

    total: float
    active: float
    active_without_embedding: float
    with_prediction: float
    """The total and the layers for multi-token prediction, as a release's files have them."""


@cache
def architecture(model: str) -> Architecture:
    """The shape of a model of the catalogue."""
    return read_architecture(target(model).config or {})


@cache
def counted(model: str) -> ParameterCount:
    """Its parameters by role."""
    return target(model).parameters()


def parameters(model: str) -> Parameters:
    """Its parameters in billions."""
    found = counted(model)
    more = found.by_role.get("mtp", 0)
    return Parameters(
        *(n / 1e9 for n in (found.total, found.active, found.active_without_embedding, found.total + more))
    )


def context(model: str) -> int:
    """Tokens that it was made for."""
    return entries()[model].context or 0


def licence(model: str) -> str:
    """Its licence as the catalogue has it."""
    return entries()[model].license or "not known"


@cache
def variant(model: str, slug: str) -> VariantPlan:
    """One method and width, without any GPU."""
    return _planned(model, slug, (), False)


def gigabytes(model: str, slug: str) -> float:
    """Checkpoint of a variant in GB (10^9 bytes)."""
    return (variant(model, slug).weight_bytes or 0) / 1e9


@cache
def on(model: str, slug: str, gpu: str, count: int) -> RigPlan:
    """One variant on so many GPUs, one sequence of CONTEXT tokens."""
    return _planned(model, slug, (GpuSet(find_gpu(gpu), count),), True).rigs[0]


@cache
def smallest(model: str, slug: str, *gpu_names: str) -> dict[str, int]:
    """How many GPUs of each kind hold it, in sizes that divide the heads."""
    names = {find_gpu(name).name: name for name in gpu_names}
    return {names[rig.gpu]: rig.gpus for rig in _planned(model, slug, (), True).rigs if rig.gpu in names}


def divides(model: str, count: int) -> str | None:
    """Why so many GPUs cannot share the heads; None where they can."""
    return why_not_parallel(architecture(model), count)


def cache_gigabytes(model: str, tokens: int, policy: Policy = "exact") -> float:
    """Cache of one sequence in bfloat16, in GB."""
    return cache_bytes(architecture(model), tokens, "bfloat16", policy).total / 1e9


def cache_bytes_per_token(model: str) -> float:
    """What each further token adds, in bytes, beyond every window and away from open blocks."""
    far, step = 2**17, 2**12
    return (
        cache_bytes(architecture(model), far + step).total - cache_bytes(architecture(model), far).total
    ) / step


def _planned(model: str, slug: str, rigs: tuple[GpuSet, ...], place: bool) -> VariantPlan:
    found = target(model)
    counts = counted(model) if found.config is None else None
    plan = plan_model(
        found.config,
        name=model,
        rigs=rigs,
        workload=PlannedWorkload(context_tokens=CONTEXT),
        methods=(slug,),
        counted=counts,
        place_gpus=place,
    )
    return plan.variants[0]
