"""The transformers engine: what it refuses to load."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from quantlab.engines._transformers.as_stored import Wanted, load_as_stored
from quantlab.errors import CellFailure


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "vocab_size": 64,
    }
    LlamaForCausalLM(LlamaConfig(**sizes, tie_word_embeddings=True)).save_pretrained(tmp_path)
    return tmp_path


def test_a_tied_head_is_not_missing(llama: Path) -> None:
    assert load_as_stored(Wanted(llama, "cpu"), {}).lm_head.weight.shape == (64, 32)


@pytest.mark.parametrize("fault", ["missing", "shape"])
def test_a_checkpoint_without_one_of_its_tensors_is_refused(llama: Path, fault: str) -> None:
    path, name = llama / "model.safetensors", "model.layers.1.mlp.up_proj.weight"
    tensors = load_file(path)
    tensors = {n: t for n, t in tensors.items() if n != name} | (
        {name: torch.zeros(3, 32)} if fault == "shape" else {}
    )
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(CellFailure, match="up_proj"):
        load_as_stored(Wanted(llama, "cpu"), {})


def test_gptqmodels_fp8_is_not_spread_over_several_places(llama: Path) -> None:
    with pytest.raises(CellFailure, match="on one device") as failure:
        load_as_stored(Wanted(llama, "cuda:0,1"), {"quant_method": "fp8", "weight_scale_method": "row"})
    assert failure.value.kind == "unsupported"
