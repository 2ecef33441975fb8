"""bitsandbytes: LLM.int8 (Dettmers et al. 2022) and 4-bit nf4 or fp4 (Dettmers et al. 2023), without calibration.

The checkpoint is saved before the first forward pass: on a CPU the library repacks 4-bit weights in place when they
are first used, and what is saved after that reloads as garbage. The loss in memory is therefore taken after saving.
"""

from __future__ import annotations

from typing import Any, Literal

from quantlab.methods import InMemory, Job
from quantlab.records import Frozen

SUMMARY = "LLM.int8 and 4-bit nf4/fp4, data-free"
BITS = (8, 4)
FORMAT = "safetensors"
FROM = "source"
EXTRA = "bitsandbytes"
REQUIRES = ("bitsandbytes", "torch", "transformers")
STORES_TOKENIZER = False
ENV: dict[str, str] = {}


class Settings(Frozen):
    """What a recipe may set; 8 bits heeds `outlier_threshold` alone."""

    type: Literal["nf4", "fp4"] = "nf4"
    double_quantization: bool = True
    outlier_threshold: float = 6.0
    """LLM.int8: activations above it stay in 16 bits."""


def effective(settings: Settings, bits: int) -> dict[str, Any]:
    """What the settings come to at the width."""
    return settings.model_dump(include={"outlier_threshold"} if bits == 8 else {"type", "double_quantization"})


def quantize(job: Job) -> InMemory:
    """Quantize while loading, save, and keep the model for the check."""
    import torch
    from transformers import BitsAndBytesConfig

    from quantlab.loading import load_model
    from quantlab.methods._loss import model_loss, quantizable_linears

    settings: Settings = job.settings
    expected = quantizable_linears(job.source, job.trust_remote_code)
    if job.bits == 8:
        config = BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=settings.outlier_threshold)
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=settings.type,
            bnb_4bit_use_double_quant=settings.double_quantization,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    with job.progress.step(f"bitsandbytes {job.bits} bits: quantizing {expected} layers"):
        how: dict[str, Any] = {"quantization_config": config, "dtype": torch.bfloat16, "device_map": {"": job.device}}
        model = load_model(job.source, job.trust_remote_code, **how)
        model.save_pretrained(job.destination)
    return InMemory(model_loss(model), expected)
