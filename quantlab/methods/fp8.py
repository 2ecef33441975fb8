"""Store weights as 8-bit floating point (e4m3) with a scale per row, and round activations per token:
FP8_DYNAMIC.

The checkpoint is that of compressed-tensors, as llm-compressor writes it: vLLM multiplies it in FP8, and so
does transformers on a GPU with FP8 instructions, but for experts. Data-free. No GPU has run it yet."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from quantlab.architecture.parameters import Matrix, ParameterCount
from quantlab.errors import CellFailure
from quantlab.methods._contract import Arithmetic, InMemory, Job, Method, Needs, Serving
from quantlab.methods._fp8_layers import KEPT, MULTIPLE
from quantlab.methods._read_only import ACTIVATIONS_IN_16_BITS, UNPACKED

_SCALE_BYTES = 2
"""A scale per row, in the dtype of the unquantized weight."""
_CONV1D = ("gpt2", "openai-gpt")
"""Architectures of transformers' Conv1D, which is no Linear and whose weight lies the other way round."""
_GROUPED = re.compile(r"self_attn\.o_a_proj$")
"""DeepSeek V4's projection by groups of heads: several matrices in one, of a class of its own."""


class Fp8(Method):
    """FP8 in compressed-tensors' format."""

    name = "fp8"
    summary = "8-bit floating point, weights per row and activations per token, data-free"
    bits = (8,)
    extra = "fp8"
    requires = ("compressed-tensors", "torch", "transformers")
    loaded_by = ("compressed_tensors",)
    marks = ("fp8",)
    lays_out_releases = False  # theirs have a scale per block or per matrix

    def quantize(self, job: Job) -> InMemory:
        """Round every weight to e4m3, file by file."""
        from quantlab.methods._fp8_files import write_checkpoint
        from quantlab.methods._fp8_layers import choose
        from quantlab.methods._fp8_memory import rounded_model, why_not_compared
        from quantlab.methods._loss import model_loss

        chosen = choose(job.source, job.trust_remote_code)
        if not chosen.parameters:
            raise CellFailure(
                "unsupported",
                "none of the layers of this architecture goes to FP8: compressed-tensors takes torch's Linear"
                " and experts alone",
            )
        layers = write_checkpoint(job.source, job.destination, chosen, job.progress)
        notes = _notes(chosen.left, bool(chosen.of_experts), job.device)
        if why := why_not_compared(job):
            return InMemory(None, len(layers), (*notes, why), layers)
        return InMemory(model_loss(rounded_model(job, chosen)), len(layers), notes, layers)

    def memory(self, parameters: int, bits: int) -> Needs:
        """The checkpoint on the device, when it is loaded again: it is written file by file."""
        return Needs(parameters * bits // 8)

    def why_left(self, count: ParameterCount, matrix: Matrix) -> str | None:
        """Why a matrix stays in 16 bits: gates of linear attention, and shapes that the kernels do not
        take."""
        return super().why_left(count, matrix) or _why_left(count, matrix)

    def matrix_bytes(self, matrix: Matrix, bits: int, settings: Any) -> int:
        """Bytes of the weight and the scales."""
        return matrix.out_features * matrix.in_features + _SCALE_BYTES * matrix.out_features

    def multiplies_in(self, bits: int) -> Arithmetic:
        """8-bit floating point."""
        return "fp8"

    def width_in(self, config: Mapping[str, Any]) -> object:
        """8 where the config does not say."""
        return config.get("bits") or 8

    def reading_notes(self, config: Mapping[str, Any], device: str) -> tuple[str, ...]:
        """What a reader of the numbers must know: transformers unpacks FP8 on a CPU."""
        if "weight_scale_method" in config or device.startswith("cuda"):
            return ()
        return (UNPACKED, ACTIVATIONS_IN_16_BITS.format(to="FP8"))

    def serving(self, bits: int, source: str) -> Serving:
        """vLLM's own kernels, found by the format."""
        note = "a GPU of compute capability 8.9 or more multiplies in FP8, an older one in 16 bits"
        return Serving(("--quantization", "compressed-tensors"), (note,))


def _why_left(count: ParameterCount, matrix: Matrix) -> str | None:
    if KEPT.search(matrix.name):
        return "a small gate, or what the releases keep in 16 bits"
    if matrix.out_features % MULTIPLE or matrix.in_features % MULTIPLE:
        return f"a side is no multiple of {MULTIPLE}, which FP8 kernels need"
    if matrix.role == "linear" and (count.model_type in _CONV1D or _GROUPED.search(matrix.name)):
        return "compressed-tensors takes torch's Linear alone"
    if matrix.fused and not matrix.name.endswith("_proj"):
        return "its experts have no names of their own in this architecture"
    return None


def _notes(left: tuple[str, ...], experts: bool, device: str) -> tuple[str, ...]:
    """What a reader of the numbers must know."""
    notes = []
    if left:
        kinds = ", ".join(sorted({name.rpartition(".")[2] for name in left}))
        notes.append(
            f"{len(left)} linear layers ({kinds}) stay in 16 bits: FP8 kernels need sides that are multiples"
            f" of {MULTIPLE}."
        )
    if experts and device != "cpu":
        notes.append(
            "In transformers on a GPU the experts' weights are unpacked and their activations stay in 16"
            " bits; vLLM rounds these too."
        )
    return (*notes, UNPACKED) if device == "cpu" else tuple(notes)


METHOD = Fp8()
