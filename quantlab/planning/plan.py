"""Define the records of a plan: what a model needs, per method, width and set of GPUs. GiB is 2^30 bytes."""

from __future__ import annotations

from typing import Literal

from quantlab.frozen import Frozen

Verdict = Literal["fits", "tight", "no", "unknown"]
"""fits: with the highest overhead; tight: with the lowest alone; no: not even with that; unknown: the cache
is not known."""


class PlannedWorkload(Frozen):
    """What the model is asked to hold at once."""

    context_tokens: int = 8192
    """Tokens in each sequence's cache."""
    batch: int = 1
    cache_dtype: str = "bfloat16"
    policy: str | None = None
    """How the engine keeps the cache: a name of `quantlab.architecture.kvcache.POLICIES`. None: as the engine
    of a GGUF file keeps it; for any other model `exact`."""


class RigPlan(Frozen):
    """One variant on one set of GPUs, split over all of them; bytes are of one GPU."""

    gpu: str
    gpus: int
    weights_bytes: int
    cache_bytes: int
    """Of all sequences of the batch."""
    activation_bytes: int
    overhead_bytes: int
    """Lowest that is quoted."""
    overhead_high_bytes: int
    total_bytes: int
    """With the lowest overhead."""
    total_high_bytes: int
    usable_bytes: int
    usable_estimated: bool = False
    """Whether no log of a process is known that saw so much."""
    verdict: Verdict
    spare_bytes: int
    """Usable less the total with the highest overhead where it fits, else with the lowest: negative by what
    is lacking."""
    largest_context_tokens: int
    """Longest context that fits at the batch asked for, up to what the model was made for; 0 where none
    does."""
    largest_batch: int
    """Most sequences of the context asked for that fit; 0 where none does."""
    not_parallel: str | None = None
    """Why the GPUs cannot share each layer, where the engine would have them do so: they then hold whole
    layers."""
    fits_vllm_share: bool | None = None
    """Whether weights, cache and activations fit the share of a GPU that vLLM takes unless told otherwise;
    None for what does not fit at all and for what llama.cpp runs."""
    decode_ceiling_tokens_per_second: float | None
    """Over the whole batch; None where the variant does not fit, or how many experts a token passes is not
    known."""
    notes: tuple[str, ...] = ()

    @property
    def why_no_ceiling(self) -> str:
        """Where there is no decode ceiling."""
        if self.verdict in ("fits", "tight"):
            return "its config does not say how many experts a token passes"
        return "only its number of parameters is known" if self.verdict == "unknown" else "it does not fit"

    @property
    def fits(self) -> bool:
        """Whether it fits at least with the lowest overhead."""
        return self.verdict in ("fits", "tight")


class VariantPlan(Frozen):
    """One method and width."""

    method: str
    bits: int
    weight_bytes: int | None
    """Of the checkpoint's tensors; None where `reason` says why it is not known."""
    checkpoint_bytes: int | None = None
    """Of all its files: the tensors and the tokenizer."""
    bits_per_weight: float | None = None
    how: str | None = None
    """formula (from every matrix's shape) or analogy (another model's bits per weight)."""
    stored: bool = False
    """Whether this is the format that the release itself is stored in."""
    reason: str = ""
    notes: tuple[str, ...] = ()
    rigs: tuple[RigPlan, ...] = ()
    """One per set of GPUs asked for; without one, the smallest set of each kind of GPU that holds it."""

    @property
    def slug(self) -> str:
        return f"as stored ({self.method})" if self.stored else f"{self.method}-{self.bits}"


class ModelPlan(Frozen):
    """What a model needs."""

    model: str
    model_type: str | None
    total_parameters: int
    active_parameters: int
    cache_bytes_per_sequence: int | None
    """None for a model whose architecture is not known."""
    cache_bytes_by_kind: dict[str, int]
    cache_bytes_by_policy: dict[str, int] = {}
    """The same sequence as each kind of engine keeps it."""
    state_bytes: int
    """Part of the cache that does not grow with the context."""
    context_tokens: int
    batch: int
    cache_dtype: str
    policy: str
    max_context_tokens: int | None
    stored_as: str | None = None
    """The quantized format of the release, as its config names it."""
    certain: bool
    """False where a figure rests on a guess that `doubts` names."""
    doubts: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    gpus_asked: bool = False
    """Whether `rigs` are what was asked for, or the smallest of each kind."""
    tokenizer_counted: bool = False
    """Whether the tokenizer in checkpoint_bytes is the model's own, or estimated from the size of the
    vocabulary."""
    variants: tuple[VariantPlan, ...] = ()

    @property
    def weight_bytes(self) -> dict[str, dict[str, int]]:
        """Bytes by method and width; the release's own format is not among them."""
        sizes: dict[str, dict[str, int]] = {}
        for variant in self.variants:
            if variant.weight_bytes is not None and not variant.stored:
                sizes.setdefault(variant.method, {})[str(variant.bits)] = variant.weight_bytes
        return sizes
