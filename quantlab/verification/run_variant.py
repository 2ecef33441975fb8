"""Run one variant in one engine through every stage, and judge what its records say."""

from __future__ import annotations

from typing import NamedTuple

from quantlab import engines, methods
from quantlab.architecture.counts import count
from quantlab.formats.json_file import read_object
from quantlab.hardware.device import Device
from quantlab.names import parse_variant
from quantlab.planning.weights import weight_bytes
from quantlab.records import DivergenceRecord, MeasureRecord, QuantizeRecord, SpeedPoint
from quantlab.records.verification import Outcome
from quantlab.verification import rules
from quantlab.verification.bench import Bench, on_gpu
from quantlab.verification.contract import judged

_FP8_CAPABILITY = (8, 9)
"""Compute capability of the first GPUs with FP8 instructions (Ada)."""
PROMPTS, TOKENS = ["the water of the", "a book that was"], 8


class Ran(NamedTuple):
    """What the stages left of a variant."""

    quantized: QuantizeRecord
    measured: MeasureRecord
    diverged: DivergenceRecord
    answers: list[tuple[int, ...]]
    planned_weight_bytes: int | None
    """By the planner's formula."""


def run_variant(bench: Bench, slug: str, engine: str | None = None) -> Outcome:
    """Quantize, save, reload, measure, diverge and generate. Raises CellFailure where a stage fails.

    An `engine` that is not the usual one of the variant's format runs it where it is named."""
    bench.use_engine(slug, engine)
    ran = Ran(
        bench.quantized(slug),
        bench.measured(slug),
        bench.diverged(slug),
        bench.answers(slug, PROMPTS * 2, TOKENS),
        _planned(bench, slug),
    )
    return judged(complaints(bench, slug, ran), figures(ran), facts(ran))


def _planned(bench: Bench, slug: str) -> int | None:
    cell = bench.cell(slug)
    counted = count(read_object(cell.prepared.weights / "config.json"))
    settings = methods.settings_in(cell.recipe, cell.variant)
    planned = weight_bytes(counted, cell.variant.method, cell.variant.bits, settings)
    return planned.bytes_total if planned else None


def complaints(bench: Bench, slug: str, ran: Ran) -> list[str]:
    """Everything that cannot be."""
    bits, gpu = parse_variant(slug).bits, on_gpu(bench.device)
    packed = bits < 16 and multiplies_packed(bench.device, slug)
    memory, speed = ran.measured.memory, ran.measured.speed
    assert memory is not None and speed is not None
    return [
        *rules.reloaded(ran.quantized),
        *rules.same_bytes("the checkpoint's tensors", ran.quantized.stored_bytes, ran.planned_weight_bytes),
        *rules.memory_order(memory, ran.measured.sampled, gpu),
        *rules.resident(memory, ran.planned_weight_bytes, gpu),
        *rules.within_device(bench.device, memory),
        *(
            said
            for point in speed.points
            for said in rules.same_bytes(
                f"the cache at batch {point.batch}", point.kv_cache_bytes, _cache_formula(bench, ran, point)
            )
        ),
        *rules.points_ran(ran.measured),
        *rules.below_ceiling(speed, gpu),
        *rules.kernel_named(speed, packed),
        *rules.divergence_small(ran.diverged, bits),
        *rules.answers_whole(ran.answers),
    ]


def multiplies_packed(device: Device, slug: str) -> bool:
    """Whether the device multiplies what the variant stores; where it lacks the instructions, the layers are
    unpacked while they load."""
    variant = parse_variant(slug)
    if methods.load(variant.method).multiplies_in(variant.bits) != "fp8":
        return True
    return on_gpu(device) and _capability(device) >= _FP8_CAPABILITY


def _capability(device: Device) -> tuple[int, int]:
    import torch

    major, minor = torch.cuda.get_device_capability(device.places.first)
    return major, minor


def _cache_formula(bench: Bench, ran: Ran, point: SpeedPoint) -> int | None:
    """As the engine keeps it: the planner's formula by the engine's policy."""
    from quantlab.architecture.cache_types import bytes_per_value
    from quantlab.architecture.kvcache import cache_bytes
    from quantlab.architecture.shape import read_architecture

    memory, engine = ran.measured.memory, ran.measured.engine
    assert memory is not None and engine is not None
    kind = memory.cache_dtype or ""
    if bytes_per_value(kind) is None:
        return None
    cell = bench.cell(ran.measured.variant)
    architecture = read_architecture(read_object(cell.prepared.weights / "config.json"))
    module = engines.load(engine)
    tokens = point.context_tokens + point.prompt_tokens + point.decode_tokens
    held = module.cached_tokens(tokens, bench.device.device)
    return cache_bytes(architecture, held, kind, module.cache_policy).total * point.batch


def figures(ran: Ran) -> dict[str, float | None]:
    """What the page shows of a variant."""
    memory, speed, made = ran.measured.memory, ran.measured.speed, ran.quantized
    assert memory is not None and speed is not None and ran.diverged.kl_divergence_nats is not None
    point = speed.points[0]
    rounded = ran.diverged.round_to_nearest
    return {
        "quantize_seconds": made.seconds,
        "whole_bits_per_weight": made.bits_per_weight,
        "stored_bytes": made.stored_bytes,
        "planned_stored_bytes": ran.planned_weight_bytes,
        "weights_bytes": memory.weights_bytes,
        "kv_cache_bytes": point.kv_cache_bytes,
        "peak_allocated_bytes": memory.peak_allocated_bytes,
        "peak_reserved_bytes": memory.peak_reserved_bytes,
        "driver_bytes": rules.driver_bytes(ran.measured.sampled),
        "peak_process_bytes": memory.peak_process_rss_bytes,
        "quantizing_peak_device_bytes": made.peak_device_bytes,
        "kl_divergence_nats": ran.diverged.kl_divergence_nats.value,
        "rounding_to_nearest_nats": rounded.kl_divergence_nats if rounded else None,
        "reload_difference_nats": _difference(made),
        "prefill_tokens_per_second": point.prefill_rate.value if point.prefill_rate else None,
        "decode_tokens_per_second": point.decode_rate.value if point.decode_rate else None,
        "decode_to_16_bit_ratio": point.decode_ratio.value if point.decode_ratio else None,
        "decode_of_ceiling_share": point.roofline.share if point.roofline else None,
    }


def _difference(made: QuantizeRecord) -> float | None:
    if made.loss_in_memory_nats is None or made.loss_reloaded_nats is None:
        return None
    return abs(made.loss_reloaded_nats - made.loss_in_memory_nats)


def facts(ran: Ran) -> dict[str, str]:
    """What the page shows beside the figures."""
    speed = ran.measured.speed
    assert speed is not None
    said = {"kernel": speed.kernel, "engine": ran.measured.engine or "", "dtype": speed.dtype}
    return {name: text for name, text in said.items() if text}
