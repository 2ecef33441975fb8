"""Scale the channels that activations make important before rounding (Lin et al. 2024): AWQ.

8 and 2 bits are not offered: GPTQModel 7.7 packs them into a checkpoint that reloads as garbage (perplexity
482,105 and 177,446 on SmolLM2, all logits finite)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

from pydantic import Field

from quantlab.architecture.parameters import Matrix, ParameterCount
from quantlab.formats.json_file import read_object
from quantlab.frozen import Frozen
from quantlab.methods import _awq_clipping, _awq_scaling, _gptqmodel
from quantlab.methods._by_block import needs_by_block
from quantlab.methods._contract import InMemory, Job, Method, Needs, Serving
from quantlab.methods._float16 import require_float16
from quantlab.methods._grouped import WORD_BITS, group_of
from quantlab.models.activations import FLOAT16

_FLOAT16 = (
    "On a GPU transformers runs AWQ's layers and all others in float16, whose range and rounding are not"
    " those of a bfloat16 baseline."
)


class Settings(Frozen):
    """What a recipe may set."""

    group_size: int = Field(default=128)
    """Columns that share a scale and a zero point."""
    symmetric: bool = False
    """Whether the zero point is the middle code, as in GPTQ. AWQ's own grid has a zero point for
    each group, loses less, and is the one that vLLM's kernels read (uint4 with zero_point, awq_marlin.py)."""
    calibration_windows: int | None = Field(default=None, ge=1)
    """How many of the calibration windows are used; null for all. The scale search costs time for each."""


class Awq(Method):
    """AWQ through GPTQModel."""

    name = "awq"
    summary = "activation-aware scaling with calibration text, through GPTQModel"
    bits = (4, 3)
    extra = "awq"
    requires = ("gptqmodel", "optimum", "torch", "transformers")
    Settings = Settings
    loaded_by = ("gptqmodel",)
    marks = ("awq",)
    widths_read = tuple(range(1, 17))
    colour = "#009e73"

    def environment(self) -> Mapping[str, str]:
        """An allocator that keeps large tensors, where its package is installed."""
        return _gptqmodel.allocator()

    def quantize(self, job: Job) -> InMemory:
        """Quantize with the calibration windows that the settings name."""
        import torch
        from gptqmodel import QuantizeConfig
        from gptqmodel.nn_modules.qlinear.torch_awq import AwqTorchLinear
        from gptqmodel.quantization import FORMAT as FORMATS
        from gptqmodel.quantization import METHOD as METHODS

        settings: Settings = job.settings
        config = QuantizeConfig(
            bits=job.bits,
            group_size=settings.group_size,
            sym=settings.symmetric,
            method=METHODS.AWQ,
            format=FORMATS.GEMM,
        )
        # its layer refuses float32 when it is made, and packs float32 weights without fault; the reload is
        # compared anyway
        AwqTorchLinear.SUPPORTS_DTYPES = [*AwqTorchLinear.SUPPORTS_DTYPES, torch.float32]
        job = replace(job, calibration=job.calibration[: settings.calibration_windows])
        # by itself GPTQModel packs with a kernel of CUDA's where it quantizes on a GPU, and stops: the layers
        # are back on the CPU by then, and that kernel has no 3 bits
        made = _gptqmodel.quantize(job, config, "awq_torch", float32=True, around=_mended)
        return made._replace(notes=(*made.notes, *_in_float16(job.source, job.device)))

    def memory(self, parameters: int, bits: int) -> Needs:
        """The unquantized model in the machine's memory, one block at a time on the device."""
        return needs_by_block(parameters, bits)

    def why_left(self, count: ParameterCount, matrix: Matrix) -> str | None:
        """Why a matrix stays in 16 bits: what GPTQModel leaves alone."""
        return super().why_left(count, matrix) or _gptqmodel.why_left(count, matrix)

    def matrix_bytes(self, matrix: Matrix, bits: int, settings: Any) -> int:
        """Bytes of qweight, qzeros and 16-bit scales, packed along the outputs; no g_idx.

        Source: gptqmodel 7.7, nn_modules/qlinear/__init__.py, _register_awq_buffers.
        """
        columns, rows = matrix.in_features, matrix.out_features
        groups, words = ceil(columns / group_of(columns, settings.group_size)), ceil(rows * bits / WORD_BITS)
        return 4 * columns * words + 4 * groups * words + 2 * groups * rows

    def forced_dtype(self, device: str) -> str | None:
        """float16 on a GPU: transformers casts the model (quantizer_awq.py, update_dtype)."""
        return FLOAT16 if device.startswith("cuda") else None

    def reading_notes(self, config: Mapping[str, Any], device: str) -> tuple[str, ...]:
        """What a reader of the numbers must know: what a GPU computes in."""
        return (_FLOAT16,) if self.forced_dtype(device) else ()

    def serving(self, bits: int, source: str) -> Serving:
        """vLLM's Marlin kernel, at 4 bits alone."""
        return Serving(("--quantization", "awq_marlin")) if bits == 4 else self.no_kernel(bits)


def _in_float16(source: Path, device: str) -> tuple[str, ...]:
    """The note on what a GPU computes in, where the unquantized model computes in something else."""
    config = read_object(source / "config.json")
    own = str(config.get("dtype") or config.get("torch_dtype") or "")
    return (_FLOAT16,) if METHOD.forced_dtype(device) not in (None, own) else ()


@contextmanager
def _mended(model: Any, job: Job) -> Iterator[list[str]]:
    """GPTQModel's groups of layers, each tried and mended, and clipping for any rows; a note on layers that
    cannot be scaled. Raises CellFailure where the device computes in float16, which does not hold the model's
    activations."""
    if METHOD.forced_dtype(job.device) == FLOAT16:
        tokens = job.calibration[0] if job.check_tokens is None else job.check_tokens
        require_float16(model.model, tokens, METHOD.name, job.bits, job.device)
    scaling, notes = _awq_scaling.of_model(model, job.calibration[0]), list[str]()
    with _awq_scaling.mended(scaling, model), _awq_clipping.any_rows():
        yield notes
    notes += scaling.notes()


METHOD = Awq()
