"""Quantize a GGUF file with llama.cpp, and list the tensors that it quantizes."""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantlab.engines._llama.library import assign
from quantlab.errors import CellFailure
from quantlab.files import folder_beside
from quantlab.formats.gguf import StoredTensor, constant, stored_tensors, tensor_types, text_of
from quantlab.formats.gguf_types import file_type, is_plain
from quantlab.formats.llama_log import llama, messages
from quantlab.outside import nearly_full

if TYPE_CHECKING:
    from quantlab.methods._gguf.importance import Importance

__all__ = ["StoredTensor", "quantizable", "quantize_file", "quantized", "stored_tensors", "tensor_types"]

_BLOCK = 32
"""Columns that the smallest block takes; llama.cpp leaves other widths at F16."""
_NEVER = (
    *("_norm.weight", "ffn_gate_inp.weight", "ffn_gate_tid2eid.weight", "attn_rel_b.weight"),
    *("altup", "laurel", "per_layer_model_proj", "ssm_conv1d", "shortconv.conv.weight"),
    *("indexer.k_proj.weight", "indexer.q_proj.weight"),
    *(f"time_mix_{part}.weight" for part in ("first", "decay_w1", "decay_w2", "lerp_fused")),
    *(
        f"time_mix_{part}{n}.weight"
        for part, numbers in (("w", "012"), ("v", "012"), ("a", "012"), ("g", "12"))
        for n in numbers
    ),
)
_NEVER_IN = {
    "glm5-next": (
        *("hc_", "indexer.attn_q_b", "indexer.attn_k", "indexer.proj"),
        *("indexer_compressor_gate", "indexer_compressor_ape", "ssm_beta.weight"),
        *(f"ssm_{part}.weight" for part in ("f_a", "f_b", "g_a", "g_b")),
        *(f"attn_{part}.weight" for part in ("kv_a_mqa", "k_b", "v_b")),
    )
}
"""Parts of names of matrices that llama.cpp never quantizes, in any model and by architecture
(tensor_allows_quantization in llama-quant.cpp)."""


def quantize_file(
    source: Path, target: Path, type_name: str, importance: Importance | None, threads: int
) -> int:
    """Quantize an F16 or F32 GGUF file; the same arguments give the same bytes, whatever the threads.

    Returns how many tensors llama.cpp stored in another type because the asked one's blocks do not divide
    their rows. `type_name` is llama.cpp's, such as Q4_K_M. Raises QuantlabError for an unknown one, and
    CellFailure with llama.cpp's reason where it refuses; no partial file is left."""
    api = llama()
    parameters = api.llama_model_quantize_default_params()
    assign(parameters, nthread=threads, ftype=constant(file_type(type_name)))
    rows = _imatrix(importance) if importance else None
    if rows is not None:
        assign(parameters, imatrix=rows)
    with folder_beside(target) as folder, messages() as said:
        partial = folder / target.name
        code = api.llama_model_quantize(os.fsencode(source), os.fsencode(partial), ctypes.byref(parameters))
        if code and nearly_full(folder):
            why = said.reason(f"code {code}", last=True)
            raise CellFailure(
                "disk_full", f"the disk was full: llama.cpp: {why}; the next run tries it again"
            )
        if code or not partial.is_file():
            raise CellFailure(
                "unsupported",
                f"llama.cpp cannot quantize to {type_name}: {said.reason(f'code {code}', last=True)}",
            )
        partial.replace(target)
    fallbacks = re.search(r"(\d+) of \d+ tensor\(s\) required fallback", "\n".join(said.lines))
    return int(fallbacks[1]) if fallbacks else 0


def _imatrix(importance: Importance) -> Any:
    """A null-terminated array of llama_model_imatrix_data: mean squares, 1 for experts that no token
    reached."""
    import numpy as np

    api = llama()
    rows = (api.llama_model_imatrix_data * (len(importance.entries) + 1))()
    for row, (name, entry) in zip(rows, importance.entries.items(), strict=False):
        counts = entry.counts[:, None]
        # With float32 on both sides the quotient has the bits that llama-quantize computes.
        means = np.where(
            counts > 0, entry.sums.reshape(len(counts), -1) / np.maximum(counts, 1), np.float32(1)
        ).astype(np.float32)
        values = (ctypes.c_float * means.size).from_buffer_copy(means.tobytes())
        row.name, row.data, row.size = name.encode(), values, means.size
    return rows


def quantizable(path: Path) -> list[StoredTensor]:
    """The weight matrices of the blocks (2D, or 3D for experts) that llama.cpp quantizes."""
    never = (*_NEVER, *_NEVER_IN.get(text_of(path, "general.architecture") or "", ()))
    return [t for t in stored_tensors(path) if _is_layer(t, never)]


def _is_layer(tensor: StoredTensor, never: tuple[str, ...]) -> bool:
    matrix = sum(n > 1 for n in tensor.shape) >= 2 and tensor.shape[0] % _BLOCK == 0
    named = tensor.name.startswith("blk.") and tensor.name.endswith("weight")
    return matrix and named and not any(part in tensor.name for part in never)


def quantized(path: Path) -> list[StoredTensor]:
    """Those of them that are stored quantized."""
    return [t for t in quantizable(path) if not is_plain(t.type)]
