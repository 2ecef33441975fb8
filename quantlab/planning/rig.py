"""Plan one variant on one set of GPUs: what each GPU holds, whether it fits, and the largest context and
batch.

llama.cpp (method gguf) splits by layers: each GPU holds its share of the layers whole, with their cache, and
the GPUs work in turn. Every other engine is taken to split each layer over all GPUs, and where the heads do
not divide, as llama.cpp."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from quantlab import engines, methods
from quantlab.architecture.kvcache import cache_bytes_per_gpu, cache_bytes_read
from quantlab.architecture.parameters import ParameterCount
from quantlab.architecture.shape import Architecture
from quantlab.architecture.weight_bytes import WeightBytes
from quantlab.catalogue.gpu import GpuSet, GpuSpec
from quantlab.planning.activations import activation_bytes, llama_activation_bytes
from quantlab.planning.calibration import calibration
from quantlab.planning.parallel import Grain, why_not_parallel
from quantlab.planning.plan import PlannedWorkload, RigPlan, Verdict
from quantlab.planning.roofline import decode_ceiling, peak_operations_per_second, weight_reads

SIZES = (1, 2, 4, 8, 16, 32)
"""How many GPUs a set can have."""
_ONE_MACHINE = 8
_LONGEST, _MOST = 2**40, 2**24


class PlannedVariant(NamedTuple):
    """What is to be placed."""

    method: str
    bits: int
    weights: WeightBytes
    counted: ParameterCount
    architecture: Architecture | None
    """None where only the number of parameters is known: cache and activations are then left out."""
    grains: tuple[Grain, ...] = ()
    """Of the quantized matrices, what each GPU's part must be whole multiples of."""

    @property
    def by_layers(self) -> bool:
        """Whether its engine gives each GPU whole layers."""
        return splits_by_layers(self.method)

    def not_parallel(self, rig: GpuSet) -> str | None:
        """Why GPUs cannot share each layer, where its engine would have them do so."""
        return (
            why_not_parallel(self.architecture, rig.count, self.grains)
            if self.architecture and not self.by_layers
            else None
        )

    def in_turn(self, rig: GpuSet) -> bool:
        """Whether the GPUs hold whole layers and so work one after the other."""
        return self.by_layers or self.not_parallel(rig) is not None


def splits_by_layers(method: str) -> bool:
    """Whether the engine that serves a method's checkpoints gives each GPU whole layers; a release's own
    format is vLLM's."""
    return engine_of(method).splits_by_layers


def engine_of(method: str) -> engines.Engine:
    """The engine that serves a method's checkpoints; or the one for releases' own formats."""
    return (
        engines.load(methods.load(method).served_by) if method in methods.names() else engines.for_releases()
    )


def tensor_parallel_sizes(
    architecture: Architecture | None, grains: tuple[Grain, ...] = ()
) -> tuple[int, ...]:
    """Sizes that divide the attention heads, and the key-value heads or are divided by them, and whose parts
    hold whole groups and blocks."""
    if architecture is None:
        return SIZES
    return tuple(n for n in SIZES if why_not_parallel(architecture, n, grains) is None)


def place(subject: PlannedVariant, rig: GpuSet, workload: PlannedWorkload) -> RigPlan:
    """The variant on these GPUs."""
    tokens, batch = workload.context_tokens, workload.batch
    low, high = overhead_bytes(subject.method)
    weights, usable = math.ceil(subject.weights.bytes_total / rig.count), rig.gpu.usable_bytes
    cache, activation = (
        _cache(subject, rig, workload, tokens) * batch,
        _activation(subject, rig, tokens, batch),
    )
    total = weights + cache + activation + low
    verdict = _verdict(subject, total, total + high - low, usable)
    overhead = high if verdict == "fits" else low
    return RigPlan(
        gpu=rig.gpu.name,
        gpus=rig.count,
        weights_bytes=weights,
        cache_bytes=cache,
        activation_bytes=activation,
        overhead_bytes=low,
        overhead_high_bytes=high,
        total_bytes=total,
        total_high_bytes=total + high - low,
        usable_bytes=usable,
        usable_estimated=rig.gpu.usable_estimated,
        verdict=verdict,
        spare_bytes=usable - (total - low + overhead),
        largest_context_tokens=_largest_context(subject, rig, workload, usable - weights - overhead),
        largest_batch=_largest_batch(subject, rig, workload, usable - weights - overhead),
        not_parallel=subject.not_parallel(rig),
        fits_vllm_share=(
            None
            if subject.by_layers or verdict not in ("fits", "tight")
            else total - low <= vllm_bytes(usable)
        ),
        decode_ceiling_tokens_per_second=(
            _ceiling(subject, rig, workload) if verdict in ("fits", "tight") else None
        ),
        notes=_notes(subject, rig),
    )


def smallest(
    subject: PlannedVariant, gpu: GpuSpec, workload: PlannedWorkload, sizes: Sequence[int]
) -> RigPlan | None:
    """The smallest set of one kind of GPU that holds the variant, or its weights where no more is known; None
    where none of `sizes` does."""
    alone = gpu.name.startswith("apple")  # a chip with its own memory, which nothing joins to another
    tried = [
        GpuSet(gpu=gpu, count=size)
        for size in (sizes[:1] if alone else sizes)
        if _could_hold(subject, gpu, size)
    ]
    return next((plan for rig in tried if _holds(plan := place(subject, rig, workload))), None)


def _holds(plan: RigPlan) -> bool:
    return plan.verdict == "fits" or (plan.verdict == "unknown" and plan.spare_bytes >= 0)


def overhead_bytes(method: str = "") -> tuple[int, int]:
    """Lowest and highest overhead of one GPU in the engine that runs a method's checkpoints."""
    low, high = (
        calibration().llama_cpp.overhead_gib if splits_by_layers(method) else calibration().gpu.overhead_gib
    )
    return int(low * 2**30), int(high * 2**30)


def vllm_bytes(usable: int) -> int:
    """What vLLM takes of so much memory unless told otherwise."""
    return int(calibration().gpu.vllm_share * usable)


def _could_hold(subject: PlannedVariant, gpu: GpuSpec, size: int) -> bool:
    return subject.weights.bytes_total / size < gpu.usable_bytes


def _verdict(subject: PlannedVariant, low: int, high: int, usable: int) -> Verdict:
    if low > usable:
        return "no"
    if subject.architecture is None:
        return "unknown"
    return "fits" if high <= usable else "tight"


def _cache(subject: PlannedVariant, rig: GpuSet, workload: PlannedWorkload, tokens: int) -> int:
    if subject.architecture is None:
        return 0
    shared = 1 if subject.in_turn(rig) else rig.count
    policy = "exact" if workload.policy is None else workload.policy
    cache = cache_bytes_per_gpu(subject.architecture, tokens, shared, workload.cache_dtype, policy).total
    return math.ceil(cache / rig.count) if subject.in_turn(rig) else cache


def _activation(subject: PlannedVariant, rig: GpuSet, tokens: int, batch: int) -> int:
    if subject.architecture is None:
        return 0
    if subject.by_layers:
        return llama_activation_bytes(subject.architecture, tokens, batch)
    return activation_bytes(subject.architecture, tokens, batch, 1 if subject.in_turn(rig) else rig.count)


def _largest_context(subject: PlannedVariant, rig: GpuSet, workload: PlannedWorkload, room: int) -> int:
    if subject.architecture is None:
        return 0
    batch, limit = workload.batch, subject.architecture.max_context or _LONGEST
    return _largest(
        lambda n: _cache(subject, rig, workload, n) * batch + _activation(subject, rig, n, batch) <= room,
        limit,
    )


def _largest_batch(subject: PlannedVariant, rig: GpuSet, workload: PlannedWorkload, room: int) -> int:
    if subject.architecture is None:
        return 0
    tokens = workload.context_tokens
    one = _cache(subject, rig, workload, tokens)
    return _largest(lambda n: one * n + _activation(subject, rig, tokens, n) <= room, _MOST)


def _largest(fits: Callable[[int], bool], limit: int) -> int:
    """The largest number up to `limit` that fits, by bisection; 0 where 1 does not."""
    if not fits(1):
        return 0
    if fits(limit):
        return limit
    low, high = 1, limit
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _ceiling(subject: PlannedVariant, rig: GpuSet, workload: PlannedWorkload) -> float | None:
    if subject.architecture is None:
        return None
    count = 1 if subject.in_turn(rig) else rig.count  # GPUs that read at the same time
    cache = cache_bytes_read(subject.architecture, workload.context_tokens, count, workload.cache_dtype)
    peak = peak_operations_per_second(rig.gpu, subject.method, subject.bits)
    read = weight_reads(subject.weights, subject.counted, subject.method).per_step(workload.batch)
    if read is None:
        return None
    return decode_ceiling(
        read, cache, workload.batch, subject.counted.active_without_embedding, rig.gpu, count, peak
    )


def _notes(subject: PlannedVariant, rig: GpuSet) -> tuple[str, ...]:
    why = subject.not_parallel(rig)
    notes = (
        [f"{why}: {engine_of(subject.method).by_layers_note}, and the ceiling is that of one GPU"]
        if why
        else []
    )
    if subject.by_layers and rig.count > 1:
        notes.append(
            "llama.cpp splits by layers unless told otherwise: its GPUs then work in turn, and the ceiling is"
            " that of one GPU"
        )
    if rig.count > _ONE_MACHINE and not subject.in_turn(rig):
        notes.append(
            f"more than {_ONE_MACHINE} GPUs span machines, which tensor parallelism needs a fast network for"
        )
    if subject.architecture and subject.architecture.model_type in calibration().gpu.known_misses:
        notes.append(calibration().gpu.known_misses[subject.architecture.model_type])
    return tuple(notes)
