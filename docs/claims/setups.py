"""Claims about which GPUs hold a model. One sequence of 8,192 tokens, unless said otherwise."""

from __future__ import annotations

from collections.abc import Iterable

from claims import PARTLY, RIGHT, WRONG, Claim
from claims.figures import cache_gigabytes, context, divides, gigabytes, on, smallest
from quantlab.numbers import listing
from quantlab.planning.calibration import calibration
from quantlab.planning.plan import RigPlan
from quantlab.planning.rig import vllm_bytes


def setups() -> Iterable[Claim]:
    """The recommended GPUs."""
    yield _held("V4-Pro runs quantized on 10 × H100 80GB.", "deepseek-v4-pro", "gptq-4", "h100", 10)
    yield _held("V4-Flash runs at 4 bits on 2 × H100.", "deepseek-v4-flash", "gptq-4", "h100", 2)
    yield _held("Qwen3.5-397B runs at 4 bits on 3 × H100.", "qwen3.5-397b-a17b", "gptq-4", "h100", 3)
    yield _held(
        "Qwen3.5-397B in 16 bits, 794 GB, takes about 10 × H100.",
        "qwen3.5-397b-a17b",
        "baseline-16",
        "h100",
        10,
    )
    yield _held("Maverick runs at 4 bits on 3 × H100.", "llama-4-maverick", "gptq-4", "h100", 3)
    yield _held("Scout runs at 4 bits on one H100.", "llama-4-scout", "gptq-4", "h100", 1)
    yield _ten_million()
    yield _held(
        "A 72B model at 4 bits fits one RTX 5090.",
        "llama-3.1-70b",
        "awq-4",
        "rtx-5090",
        1,
        "llama-3.1-70b stands for it: ",
    )
    yield _held(
        "A 72B model at 4 bits fits one A100 80GB.",
        "llama-3.1-70b",
        "awq-4",
        "a100",
        1,
        "llama-3.1-70b stands for it: ",
    )
    yield _held(
        "A 72B model at 4 bits fits 2 × RTX 5090.",
        "llama-3.1-70b",
        "awq-4",
        "rtx-5090",
        2,
        "llama-3.1-70b stands for it: ",
    )


def _held(said: str, model: str, slug: str, gpu: str, count: int, before: str = "") -> Claim:
    rig, why = on(model, slug, gpu, count), divides(model, count)
    need = f"{_each(rig)} per GPU for {slug} of {gigabytes(model, slug):,.1f} GB"
    words = {
        "fits": "it fits",
        "tight": "it fits with the lowest overhead that is quoted alone",
        "no": "it does not fit",
    }
    parts = [f"{before}{words.get(rig.verdict, rig.verdict)}: {need}"]
    if rig.fits:
        parts.append(f"with room for {rig.largest_context_tokens:,} tokens in one sequence")
    if rig.fits_vllm_share is False:
        share = calibration().gpu.vllm_share
        room = vllm_bytes(rig.usable_bytes) / 2**30
        parts.append(
            f"but not into the {room:.1f} GiB per GPU that vLLM takes at gpu_memory_utilization {share:g}"
        )
    if why:
        parts.append(f"and {why}")
    if rig.verdict != "fits" or why:
        others = smallest(model, slug, "h100", "h200", "rtx-5090")
        parts.append(
            f"the smallest sets that hold it: {listing(f'{n} × {name}' for name, n in others.items())}"
        )
    parts += [note for note in rig.notes if not (why and why in note)]
    against = (rig.verdict == "tight") + bool(why)
    verdict = (
        WRONG
        if rig.verdict == "no" or rig.fits_vllm_share is False or against > 1
        else PARTLY
        if against
        else RIGHT
    )
    return Claim(
        said, "; ".join(parts) + ".", verdict, f"`quantlab plan {model} --methods {slug} --gpu {gpu}:{count}`"
    )


def _each(rig: RigPlan) -> str:
    return (
        f"{rig.total_bytes / 2**30:.1f} to {rig.total_high_bytes / 2**30:.1f} GiB of"
        f" {rig.usable_bytes / 2**30:.1f}"
    )


def _ten_million() -> Claim:
    tokens = context("llama-4-scout")
    exact, full = (
        cache_gigabytes("llama-4-scout", tokens),
        cache_gigabytes("llama-4-scout", tokens, "every_layer_full"),
    )
    rig = on("llama-4-scout", "gptq-4", "h100", 1)
    return Claim(
        "Scout's 10M tokens of context are there for use on that one H100.",
        f"The cache of {tokens:,} tokens takes {exact:,.0f} GB, {full:,.0f} in an engine that does not honour"
        f" chunks; with gptq-4 one H100 has room for {rig.largest_context_tokens:,} tokens.",
        RIGHT if rig.largest_context_tokens >= tokens else WRONG,
        f"`quantlab plan llama-4-scout --context {tokens} --methods gptq-4 --gpu h100`",
    )
