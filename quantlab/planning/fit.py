"""Whether a model fits a set of GPUs, at every method and width: weights, cache, activations and overhead, each by itself.

Everything is computed from the model's config.json and the catalogue's GPUs; nothing is loaded and no torch imported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from quantlab.catalogue.gpu import GpuSpec
from quantlab.records import Frozen


class Rig(NamedTuple):
    """GPUs of one kind that hold one copy of the model, tensor-parallel."""

    gpu: GpuSpec
    count: int

    @property
    def name(self) -> str:
        return f"{self.count} × {self.gpu.name}" if self.count > 1 else self.gpu.name


class Workload(Frozen):
    """What the model is asked to hold at once."""

    context_tokens: int = 8192
    """Tokens in each sequence's cache."""
    batch: int = 1
    cache_dtype: str = "bfloat16"
    policy: str = "exact"
    """How the engine keeps the cache: a name of `quantlab.planning.kvcache.POLICIES`."""


class RigPlan(Frozen):
    """One variant on one rig; bytes are of the fullest GPU."""

    gpu: str
    gpus: int
    """How many GPUs; tensor parallelism over all of them."""
    weights_bytes: int
    cache_bytes: int
    """Of all sequences of the batch."""
    activation_bytes: int
    overhead_bytes: int
    total_bytes: int
    usable_bytes: int
    fits: bool
    spare_bytes: int
    """Usable less total; negative by how much does not fit."""
    largest_context_tokens: int
    """Longest context that fits at the batch asked for, up to what the model was made for; 0 where none does."""
    largest_batch: int
    """Most sequences of the context asked for that fit; 0 where none does."""
    decode_ceiling_tokens_per_second: float | None
    """Over the whole batch; None where the GPU's bandwidth is not known or the variant does not fit."""
    total_high_bytes: int
    """Total with the highest overhead quoted: between the two it is not certain that the variant fits."""


class VariantPlan(Frozen):
    """One method and width."""

    method: str
    bits: int
    stored: bool = False
    """Whether this is the format that the release itself is stored in."""
    weight_bytes: int | None
    """Of the checkpoint; None where `reason` says why it is not known."""
    bits_per_weight: float | None = None
    reason: str = ""
    exact: bool = True
    rigs: tuple[RigPlan, ...] = ()
    """One per rig asked for; without one, the smallest set of each kind of GPU that holds it."""

    @property
    def slug(self) -> str:
        return f"{self.method}-{self.bits}"


class ModelPlan(Frozen):
    """What a model needs."""

    model: str
    model_type: str
    total_parameters: int
    active_parameters: int
    cache_bytes_per_sequence: int
    cache_bytes_by_kind: dict[str, int]
    state_bytes: int
    """Part of the cache that does not grow with the context."""
    context_tokens: int
    batch: int
    cache_dtype: str
    policy: str
    max_context_tokens: int | None
    certain: bool
    """False where a figure rests on a guess that `doubts` names."""
    doubts: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    variants: tuple[VariantPlan, ...] = ()


def plan_model(
    config: Mapping[str, Any],
    *,
    name: str,
    rigs: Sequence[Rig] = (),
    workload: Workload | None = None,
    methods: Sequence[str] = (),
    warnings: Sequence[str] = (),
) -> ModelPlan:
    """The plan of a model from its config.json's content.

    Without `rigs` every variant gets the smallest set of each kind of GPU of the catalogue that holds it. `methods` are
    names (all their widths) or variants such as `gptq-4`; empty means all. Raises QuantlabError for a config that
    cannot be planned and for unknown methods.
    """
    raise NotImplementedError
