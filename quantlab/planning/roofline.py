"""Compute the decode ceiling on the catalogue's GPUs from a plan, with `architecture.roofline`.

Rows of the input embedding are not counted. Engines reach about 0.8 of the bandwidth at best, and less of the
ceiling."""

from __future__ import annotations

from quantlab import methods
from quantlab.architecture.parameters import ParameterCount
from quantlab.architecture.roofline import WeightReads, tokens_per_second
from quantlab.architecture.weight_bytes import WeightBytes
from quantlab.catalogue.gpu import GpuSpec

_VISION_BYTES = 2


def weight_reads(weights: WeightBytes, count: ParameterCount, method: str = "") -> WeightReads:
    """Weight bytes that a decode reads, over all GPUs."""
    inside = not method or _stores_tower(method)
    tower = count.by_role.get("vision", 0) * _VISION_BYTES if inside else 0
    aside = weights.embedding_bytes + tower
    routed = weights.expert_bytes if count.experts else 0  # of experts that were not recognized all are read
    return WeightReads(
        max(weights.bytes_total - aside - routed, 0), routed, count.experts, count.experts_per_token
    )


def peak_operations_per_second(gpu: GpuSpec, method: str, bits: int) -> float | None:
    """Dense peak for what the method multiplies in; None where the catalogue has none."""
    kind = methods.load(method).multiplies_in(bits) if method in methods.names() else "bf16"
    tera = gpu.tflops.get(kind) or gpu.tflops.get("bf16") or gpu.tflops.get("fp16")
    return tera * 1e12 if tera else None


def decode_ceiling(
    weight_bytes_read: float,
    cache_bytes_read: int,
    batch: int,
    active: int,
    gpu: GpuSpec,
    count: int,
    peak: float | None,
) -> float:
    """Tokens per second over the whole batch. `cache_bytes_read` is one sequence's on one of `count` GPUs
    that work at the same time; of GPUs that work in turn, as llama.cpp's do, `count` is 1."""
    arithmetic = batch * 2 * active / (peak * count) if peak else 0.0
    per_gpu = weight_bytes_read / count + batch * cache_bytes_read
    return tokens_per_second(batch, per_gpu, gpu.bandwidth_gb_per_second * 1e9, arithmetic)


def _stores_tower(method: str) -> bool:
    """Whether a vision tower is in the checkpoint; releases in their own format have it."""
    return method not in methods.names() or methods.load(method).stores_tower
