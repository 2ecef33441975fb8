"""Matrices that F16 cannot hold are found; those that it holds, and vectors, are left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from quantlab.formats.half_precision import beyond_f16
from quantlab.stages import convert


def _folder(tmp_path: Path, dtype: torch.dtype, **changed: torch.Tensor) -> Path:
    torch.manual_seed(0)
    tensors = {"a.weight": 0.02 * torch.randn(32, 64), "norm.weight": torch.full((64,), 1e6)}
    tensors |= {f"{name}.weight": values for name, values in changed.items()}
    save_file({name: t.to(dtype) for name, t in tensors.items()}, tmp_path / "model.safetensors")
    return tmp_path


def _one_large() -> torch.Tensor:
    values = 0.02 * torch.randn(32, 64)
    values[3, 5] = 7e4
    return values


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_ordinary_weights_are_held(tmp_path: Path, dtype: torch.dtype) -> None:
    tiny_among_ordinary = 0.02 * torch.randn(32, 64)
    tiny_among_ordinary[0] = 1e-9
    folder = _folder(tmp_path, dtype, b=tiny_among_ordinary, zero=torch.zeros(4, 4))
    assert beyond_f16(folder) == []
    assert convert._dtype_for(folder) == ("f16", ())


@pytest.mark.parametrize(
    ("dtype", "name"), [(torch.bfloat16, "bf16"), (torch.float32, "f32"), (torch.float16, "f16")]
)
@pytest.mark.parametrize("how", ["overflow", "become 0"])
def test_what_f16_would_lose_is_converted_to_another_dtype_and_named(
    tmp_path: Path, dtype: torch.dtype, name: str, how: str
) -> None:
    values: Any = _one_large() if how == "overflow" else 1e-9 * torch.randn(32, 64)
    if dtype == torch.float16:
        values = values.clamp(-6e4, 6e4)
    chosen = convert._dtype_for(_folder(tmp_path, dtype, wide=values))
    assert chosen.name == name
    if name != "f16":
        said = f"Its unquantized GGUF is {name.upper()}: in F16 weights of wide.weight would {how}."
        assert chosen.notes == (said,)


@pytest.mark.parametrize(
    ("kinds", "asked", "many"), [("BF16", "f16", 2), ("BF16", "bf16", 0), ("F16", "f16", 0)]
)
def test_matrices_that_the_converter_keeps_in_bfloat16_are_said(
    kinds: str, asked: str, many: int, tmp_path: Path
) -> None:
    """As of DeepSeek V4: 13 of 1,024 tokens of the tiny one go to another expert, 2e-3 nats of the mean."""
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(tmp_path / "made.gguf", "llama")
    kind = gguf.GGMLQuantizationType[kinds]
    for name in ("blk.0.attn_q.weight", "blk.0.attn_k.weight"):
        values = gguf.quants.quantize(np.ones((32, 64), np.float32), kind)
        writer.add_tensor(name, values, raw_dtype=kind)
    writer.add_tensor("blk.0.attn_norm.weight", np.ones(64, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    notes = convert._kept_in_bf16(tmp_path / "made.gguf", asked)
    assert [f"keeps {many} matrices" in note for note in notes] == [True] * bool(many)
