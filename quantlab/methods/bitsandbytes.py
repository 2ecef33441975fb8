"""Quantize without calibration: LLM.int8 (Dettmers et al. 2022), 4-bit nf4 or fp4 (Dettmers et al. 2023).

The checkpoint is saved before the first forward pass: on a CPU the library repacks 4-bit weights in place
when they are first used, and what is saved after that reloads as garbage. The loss in memory is therefore
taken after saving."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any, Literal

from quantlab.architecture.parameters import Matrix, ParameterCount
from quantlab.engines._transformers.int8 import flattened, take_any_shape
from quantlab.frozen import Frozen
from quantlab.methods._bitsandbytes_experts import experts_apart, keep_apart
from quantlab.methods._bitsandbytes_layers import layers_of, note, packable
from quantlab.methods._contract import Arithmetic, Grid, InMemory, Job, Method, Needs, Serving

_QUANT_STATE_BYTES = 170
"""The description that a 4-bit weight carries (functional.py, QuantState.as_dict), about."""
_BLOCK_WEIGHTS = 64
_BLOCK_SCALES = 256


class Settings(Frozen):
    """What a recipe may set; 8 bits heeds `outlier_threshold` alone."""

    type: Literal["nf4", "fp4"] = "nf4"
    double_quantization: bool = True
    outlier_threshold: float = 6.0
    """LLM.int8: activations above it stay in 16 bits."""


class BitsAndBytes(Method):
    """bitsandbytes through transformers."""

    name = "bitsandbytes"
    summary = "LLM.int8 and 4-bit nf4/fp4, data-free"
    bits = (8, 4)
    extra = "bitsandbytes"
    requires = ("bitsandbytes", "torch", "transformers")
    Settings = Settings
    stores_tokenizer = False
    loaded_by = ("bitsandbytes",)
    marks = ("bitsandbytes",)
    colour = "#cc79a7"

    def grid(self, settings: Any) -> Grid:
        """A block of 4 bits; its values are not equally spaced, which loses less."""
        return Grid(_BLOCK_WEIGHTS, symmetric=True)

    def effective(self, settings: Any, bits: int) -> dict[str, Any]:
        """What the settings come to at the width."""
        values: dict[str, Any] = settings.model_dump(
            include={"outlier_threshold"} if bits == 8 else {"type", "double_quantization"}
        )
        return values

    def quantize(self, job: Job) -> InMemory:
        """Quantize while loading, save, and keep the model for the check."""
        import torch
        from transformers import BitsAndBytesConfig

        from quantlab.methods._loss import model_loss
        from quantlab.models.loading import load_model

        settings: Settings = job.settings
        layers = layers_of(job.source, job.trust_remote_code)
        expected = len(layers.quantized)
        left: dict[str, Any] = {"llm_int8_skip_modules": list(layers.skipped)}
        if job.bits == 8:
            threshold = settings.outlier_threshold
            config = BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=threshold, **left)
        else:
            config = BitsAndBytesConfig(
                **left,
                load_in_4bit=True,
                bnb_4bit_quant_type=settings.type,
                bnb_4bit_use_double_quant=settings.double_quantization,
                bnb_4bit_compute_dtype=torch.bfloat16,
            )
        with job.progress.step(f"bitsandbytes {job.bits} bits: quantizing {expected} layers"):
            how: dict[str, Any] = {
                "quantization_config": config,
                "dtype": torch.bfloat16,
                "device_map": {"": job.device},
            }
            with experts_apart():
                model = load_model(job.source, job.trust_remote_code, **how)
            keep_apart(model)
            model.save_pretrained(job.destination)
            take_any_shape(model)
        notes = (note(layers),) if layers.unpackable else ()
        loss = model_loss(model)
        if job.check_tokens is None:
            return InMemory(loss, expected, notes)
        nats = loss(job.check_tokens)
        return InMemory(lambda _: nats, expected, (*notes, *_needing_shape(flattened(model))))

    def memory(self, parameters: int, bits: int) -> Needs:
        """The quantized weights on the device: each is quantized as it comes from its file."""
        return Needs(parameters * bits // 8)

    def why_left(self, count: ParameterCount, matrix: Matrix) -> str | None:
        """Why a matrix stays in 16 bits: transformers replaces torch Linears alone."""
        if matrix.fused and not _apart(count):
            return (
                "bitsandbytes quantizes torch Linears alone, and its experts are one three-dimensional tensor"
            )
        if matrix.role == "linear" and not packable(matrix.out_features, matrix.in_features):
            return "bitsandbytes packs blocks of 32 outputs and 64 inputs"
        return super().why_left(count, matrix)

    def matrix_bytes(self, matrix: Matrix, bits: int, settings: Any) -> int:
        """Bytes of codes, scales, tables and the description of both.

        4 bits (functional.py, QuantState.as_dict): half a byte per weight, a scale per 64 weights, the 16
        values of the type and a description; with double quantization the scales take a byte each, and a
        float32 per 256 of them with a table of 256. 8 bits: a byte per weight, a float32 per row, and a byte
        that names the format."""
        weights = matrix.out_features * matrix.in_features
        if bits == 8:
            return weights + 4 * matrix.out_features + 1
        scales = ceil(weights / _BLOCK_WEIGHTS)
        nested = scales + 4 * ceil(scales / _BLOCK_SCALES) + 4 * _BLOCK_SCALES
        return (
            ceil(weights / 2)
            + (nested if settings.double_quantization else 4 * scales)
            + 4 * 16
            + _QUANT_STATE_BYTES
        )

    def remarks(self, count: ParameterCount, settings: Any) -> tuple[str, ...]:
        """What a reader of the bytes must know."""
        fused = any(m.fused for m in count.tensors) and not _apart(count)
        said = (
            "Experts stay in 16 bits: transformers holds them in one tensor per layer, which bitsandbytes"
            " does not quantize."
        )
        return (*([said] if fused else []), *super().remarks(count, settings))

    def multiplies_in(self, bits: int) -> Arithmetic:
        """LLM.int8 multiplies in 8-bit integers."""
        return "int8" if bits == 8 else "bf16"

    def width_in(self, config: Mapping[str, Any]) -> object:
        """The width that the loading flag says."""
        return config.get("bits") or (8 if config.get("load_in_8bit") else 4)

    def serving(self, bits: int, source: str) -> Serving:
        """vLLM's plugin, on one GPU."""
        note = "from vLLM 0.28 on this needs `pip install vllm-bnb-plugin`"
        return Serving(("--quantization", "bitsandbytes"), (note,), several_gpus=False)


def _needing_shape(names: list[str]) -> tuple[str, ...]:
    """What other programs have to do with layers that get inputs of four dimensions, in one sentence."""
    if not names:
        return ()
    kinds = ", ".join(sorted({name.rpartition(".")[2] for name in names}))
    return (
        f"{len(names)} layers ({kinds}) are given four dimensions, and LLM.int8 of bitsandbytes takes at most"
        " three: quantlab flattens them; other programs stop or compute something else.",
    )


def _apart(count: ParameterCount) -> bool:
    """Whether transformers reads a family's experts one by one from a bitsandbytes checkpoint."""
    return count.model_type in ("llama4", "llama4_text")


METHOD = BitsAndBytes()
