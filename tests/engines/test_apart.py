"""Packed layers that transformers' class of a model does not have."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from quantlab.engines._transformers.apart import layers_apart
from quantlab.engines._transformers.as_stored import needs_gptqmodel
from quantlab.models.tiny import build, family

_EXPERT = "model.layers.1.mlp.experts.3.gate_proj"
_PROJECTION = "model.layers.0.self_attn.q_proj"


def _checkpoint(folder: Path, name: str, packed: list[str]) -> Path:
    build(family(name)).config.save_pretrained(folder)
    words = {f"{layer}.qweight": torch.zeros(8, 8, dtype=torch.int32) for layer in packed}
    save_file(words, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("name", "packed", "apart"),
    [
        ("llama", [_PROJECTION, "model.layers.0.mlp.gate_proj"], []),
        ("qwen3_moe", [_PROJECTION, _EXPERT], [_EXPERT]),
        ("mixtral", [_PROJECTION, _EXPERT], [_EXPERT]),
        ("phi3", ["model.layers.0.mlp.gate_proj"], ["model.layers.0.mlp.gate_proj"]),
        ("llama", ["model.language_model.layers.0.self_attn.q_proj"], []),
    ],
)
def test_layers_of_the_class_and_layers_apart(
    tmp_path: Path, name: str, packed: list[str], apart: list[str]
) -> None:
    folder = _checkpoint(tmp_path, name, packed)
    assert layers_apart(folder, trust_remote_code=False) == apart
    assert needs_gptqmodel(folder, {"quant_method": "gptq"}, trust_remote_code=False) == bool(apart)
    assert not needs_gptqmodel(folder, {"quant_method": "auto-round"}, trust_remote_code=False)
