"""Which matrices llama.cpp quantizes, by name and architecture, and what counts as quantized."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFWriter

from quantlab.formats import stored
from quantlab.methods._gguf.quantizer import quantizable

MATRICES = (
    *("attn_q", "attn_output_a", "ffn_gate_exps", "indexer.attn_q_b", "indexer.proj", "indexer.k_proj"),
    *("indexer_compressor_kv", "indexer_compressor_gate", "ffn_gate_inp", "hc_attn_fn"),
)


def _file(path: Path, architecture: str) -> Path:
    """One matrix of each name, and DeepSeek V4's table of experts by token."""
    writer = GGUFWriter(path, architecture)
    for name in MATRICES:
        writer.add_tensor(f"blk.0.{name}.weight", np.zeros((2, 32), np.float16))
    writer.add_tensor("blk.0.ffn_gate_tid2eid.weight", np.zeros((8, 32), np.int32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    ("architecture", "left"),
    [
        ("deepseek4", {"indexer.k_proj", "ffn_gate_inp"}),
        (
            "glm5-next",
            {
                *("indexer.k_proj", "ffn_gate_inp", "indexer.attn_q_b", "indexer.proj"),
                *("indexer_compressor_gate", "hc_attn_fn"),
            },
        ),
    ],
)
def test_every_matrix_but_those_that_llama_cpp_names(
    tmp_path: Path, architecture: str, left: set[str]
) -> None:
    found = quantizable(_file(tmp_path / "f16.gguf", architecture))
    assert {tensor.name for tensor in found} == {f"blk.0.{name}.weight" for name in set(MATRICES) - left}


def test_a_table_of_whole_numbers_is_not_quantized(tmp_path: Path) -> None:
    counted = stored.of_gguf(_file(tmp_path / "f16.gguf", "deepseek4"))
    assert (counted.quantized_layers, counted.quantized_bytes) == (0, 0)
    assert counted.types == {"F16": len(MATRICES), "I32": 1}
