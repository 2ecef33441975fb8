"""autoround: rounding and clipping learned by signed gradient descent (Cheng et al. 2024), through auto-round.

At 2 bits it does not collapse where GPTQ does; it takes the role that QuIP# has in people's tables.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from quantlab.methods import InMemory, Job
from quantlab.records import Frozen

SUMMARY = "learned rounding with calibration text, through auto-round; good at 2 bits"
BITS = (4, 3, 2)
FORMAT = "safetensors"
FROM = "source"
EXTRA = "autoround"
REQUIRES = ("auto-round", "torch", "transformers")
ENV: dict[str, str] = {}


class Settings(Frozen):
    """What a recipe may set."""

    group_size: Literal[32, 64, 128] = 128
    iterations: int = Field(default=200, ge=1)
    """Steps of gradient descent per block."""
    samples: int = Field(default=128, ge=1)
    """Calibration windows at the most."""
    batch_size: int = Field(default=4, ge=1)


def quantize(job: Job) -> InMemory:
    """See the module."""
    import torch
    from auto_round import AutoRound

    from quantlab.loading import load_model, load_tokenizer, only_trusted_code
    from quantlab.methods._loss import model_loss, quantizable_linears

    settings: Settings = job.settings
    windows = [torch.from_numpy(ids)[None] for ids in job.calibration[: settings.samples]]
    expected = quantizable_linears(job.source, job.trust_remote_code)
    model = load_model(job.source, job.trust_remote_code, dtype="auto")
    tokenizer = load_tokenizer(job.source, job.trust_remote_code)
    rounding: Any = AutoRound(
        model,
        tokenizer,
        scheme=f"W{job.bits}A16G{settings.group_size}",
        iters=settings.iterations,
        nsamples=len(windows),
        seqlen=job.calibration.shape[1],
        batch_size=min(settings.batch_size, len(windows)),
        dataset=windows,
        device_map=job.device,
        enable_torch_compile=False,
        low_cpu_mem_usage=False,
        seed=job.seed,
    )
    step = job.progress.step(f"auto-round: {expected} layers to {job.bits} bits, {settings.iterations} steps per block")
    with step, only_trusted_code(job.trust_remote_code):
        quantized, _ = rounding.quantize()
        # saving packs the layers in place and frees them: the model in memory is asked before
        loss = None if job.check_tokens is None else model_loss(quantized)(job.check_tokens)
        rounding.save_quantized(str(job.destination), format="auto_round")
    return InMemory(None if loss is None else lambda _: loss, expected)
