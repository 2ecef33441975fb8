"""Inspect a GGUF file and its loaded model: what llama.cpp computes in, its kernels, and the weights that a
decode reads."""

from __future__ import annotations

import os
from pathlib import Path

from quantlab.architecture.cache_types import is_quantized
from quantlab.architecture.roofline import WeightReads
from quantlab.engines._llama.library import Model
from quantlab.formats.gguf import StoredTensor, tensor_types
from quantlab.formats.gguf_types import is_plain
from quantlab.formats.llama_log import llama
from quantlab.hardware.device import parse_places

_INSTRUCTIONS = (
    "AVX2",
    "AVX_VNNI",
    "AVX512",
    "AVX512_VNNI",
    "AVX512_BF16",
    "AMX_INT8",
    "NEON",
    "DOTPROD",
    "MATMUL_INT8",
    "SVE",
    "LLAMAFILE",
)


def reads_of(tensors: list[StoredTensor], used: str | None) -> WeightReads:
    """Weights that a decode reads, as the file stores them: repacking keeps their size."""
    tied = not any(tensor.name == "output.weight" for tensor in tensors)
    experts = [tensor for tensor in tensors if "_exps." in tensor.name]
    always = [t for t in tensors if "_exps." not in t.name and (tied or t.name != "token_embd.weight")]
    count = max((t.shape[2] for t in experts), default=0)
    return WeightReads(
        sum(t.bytes for t in always), sum(t.bytes for t in experts), count, int(used or 0) if experts else 0
    )


def dtype_of(file: Path, device: str, cache: str) -> str:
    """What llama.cpp computes in: between layers always float32."""
    quantized = not parse_places(device).gpus and not all(is_plain(kind) for kind in tensor_types(file))
    inside = " (8-bit activations inside quantized products)" if quantized else ""
    held = "float16" if cache == "f16" else f"{cache}{' (flash attention)' if is_quantized(cache) else ''}"
    return f"float32{inside}, {held} cache"


def kernel_of(model: Model, flash: bool) -> str:
    """The instructions that llama.cpp was built for and uses, whether it repacked weights for them, and
    whether attention is flash attention."""
    attention = f"flash attention {'on' if flash else 'off'}"
    if model.device.startswith("cuda"):
        return f"llama.cpp CUDA ({attention})"
    said = {part.split(":")[-1].strip() for part in llama().llama_print_system_info().decode().split("|")}
    used = [name for name in _INSTRUCTIONS if f"{name} = 1" in said]
    repacked = (
        f"{model.repacked_bytes / 1e6:.0f} MB of weights repacked"
        if model.repacked_bytes
        else "no weights repacked"
    )
    # Threads that sleep between the graph's nodes decode three times slower on an idle machine, at every
    # width alike.
    waits = "; OMP_WAIT_POLICY=passive" if os.environ.get("OMP_WAIT_POLICY", "").lower() == "passive" else ""
    return f"llama.cpp CPU ({', '.join(used) or 'generic'}; {repacked}; {attention}{waits})"
