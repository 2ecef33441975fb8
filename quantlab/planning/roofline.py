"""The fastest that a GPU could decode: every weight and the cache are read once per step, or the arithmetic takes longer.

tokens/s <= batch / max(bytes / bandwidth, batch * 2 * active parameters / peak). Of a mixture of experts only the
touched experts are read, experts * (1 - (1 - k/E)^batch) with uniform routing; rows of the input embedding are not
counted. Engines reach about 0.8 of the bandwidth at best, and less of the ceiling.
"""

from __future__ import annotations

from quantlab import methods
from quantlab.architecture.counts import ParameterCount
from quantlab.architecture.weight_bytes import WeightBytes
from quantlab.catalogue.gpu import GpuSpec

_VISION_BYTES = 2


def bytes_read(weights: WeightBytes, count: ParameterCount, batch: int, method: str = "") -> float:
    """Weight bytes that one decoding step of the whole batch reads, over all GPUs."""
    idle = weights.expert_bytes * untouched_share(count.experts, count.experts_per_token, batch)
    inside = not method or _stores_tower(method)
    tower = count.by_role.get("vision", 0) * _VISION_BYTES if inside else 0
    aside = weights.embedding_bytes + tower
    return max(weights.bytes_total - aside - idle, 0)


def untouched_share(experts: int, per_token: int, batch: int) -> float:
    """Share of the routed experts that no token of a batch passes, with uniform routing."""
    return (1 - per_token / experts) ** batch if experts else 0.0


def peak_operations_per_second(gpu: GpuSpec, method: str, bits: int) -> float | None:
    """Dense peak for what the method multiplies in; None where the catalogue has none."""
    kind = methods.load(method).multiplies_in(bits) if method in methods.names() else "bf16"
    tera = gpu.tflops.get(kind) or gpu.tflops.get("bf16") or gpu.tflops.get("fp16")
    return tera * 1e12 if tera else None


def decode_ceiling(
    weight_bytes_read: float, cache_bytes_read: int, batch: int, active: int, gpu: GpuSpec, count: int, peak: float | None
) -> float:
    """Tokens per second over the whole batch. `cache_bytes_read` is one sequence's on one of `count` GPUs that
    work at the same time; of GPUs that work in turn, as llama.cpp's do, `count` is 1."""
    seconds = (weight_bytes_read / count + batch * cache_bytes_read) / (gpu.bandwidth_gb_per_second * 1e9)
    if peak:
        seconds = max(seconds, batch * 2 * active / (peak * count))
    return batch / seconds if seconds else 0.0


def _stores_tower(method: str) -> bool:
    """Whether a vision tower is in the checkpoint; a release's own format is no method here, and has it."""
    return method not in methods.names() or methods.load(method).stores_tower
