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
