"""Packed checkpoints that lack a part, hold one too many, or give layers widths of their own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from quantlab.engines._transformers.as_stored import Wanted, load_as_stored, needs_gptqmodel
from quantlab.engines._transformers.dense import load_dense
from quantlab.engines._transformers.load import load
from quantlab.errors import CellFailure
from quantlab.formats.quantization import quantization_config
from quantlab.models.loading import broken_checkpoint, load_model

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "vocab_size": 64,
    "tie_word_embeddings": False,
}
LAYER = "model.layers.1.mlp.up_proj"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("plain") / "model"
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**SIZES)).to(torch.bfloat16).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def packed(plain: Path) -> dict[int, Path]:
    """The same model by bitsandbytes, at 8 and 4 bits."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    made = {}
    for bits in (8, 4):
        config = BitsAndBytesConfig(**{f"load_in_{bits}bit": True})
        model = AutoModelForCausalLM.from_pretrained(plain, quantization_config=config, device_map="cpu")
        made[bits] = plain.parent / f"bits{bits}"
        model.save_pretrained(made[bits])
    return made


def _changed(folder: Path, target: Path, drop: str = "", **add: torch.Tensor) -> Path:
    shutil.copytree(folder, target)
    tensors = load_file(target / "model.safetensors")
    kept = {name: t for name, t in tensors.items() if not (drop and name.startswith(drop))}
    assert len(kept) < len(tensors) or not drop
    save_file(kept | add, target / "model.safetensors", {"format": "pt"})
    return target


@pytest.mark.parametrize(
    ("bits", "drop", "named"),
    [
        (8, f"{LAYER}.SCB", f"{LAYER}.SCB"),
        (8, f"{LAYER}.", f"{LAYER}.weight"),
        (4, f"{LAYER}.weight.absmax", f"{LAYER}.weight.absmax"),
        (4, f"{LAYER}.weight.quant_state", f"{LAYER}.weight.quant_state"),
        (4, f"{LAYER}.", f"{LAYER}.weight"),
        (4, "lm_head", "lm_head.weight"),
    ],
)
def test_what_a_packed_layer_lacks_is_named(
    packed: dict[int, Path], tmp_path: Path, bits: int, drop: str, named: str
) -> None:
    """And never an attribute of a library's, such as 'CB', or a kernel that torch lacks."""
    folder = _changed(packed[bits], tmp_path / "broken", drop)
    with pytest.raises(CellFailure, match=r"not those of its config\.json: 1 tensors are missing") as failure:
        load_as_stored(Wanted(folder, "cpu"), quantization_config(folder))
    assert failure.value.reason.endswith(f": {named}") and failure.value.kind == "broken_checkpoint"


@pytest.mark.parametrize("drop", ["nested_absmax", "nested_quant_map", "nested_"])
@pytest.mark.parametrize("dense", [False, True])
def test_scales_of_scales_that_are_missing_are_named(
    plain: Path, tmp_path: Path, drop: str, dense: bool
) -> None:
    """bitsandbytes takes scales that it quantized once more for the scales themselves, and loads."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_use_double_quant=True)
    model = AutoModelForCausalLM.from_pretrained(plain, quantization_config=config, device_map="cpu")
    model.save_pretrained(tmp_path / "double")
    load(Wanted(tmp_path / "double", "cpu", dense))
    folder = _changed(tmp_path / "double", tmp_path / "broken", f"{LAYER}.weight.{drop}")
    with pytest.raises(CellFailure, match=rf"tensors are missing: {LAYER}\.weight\.nested_") as failure:
        load(Wanted(folder, "cpu", dense))
    assert failure.value.kind == "broken_checkpoint"


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_biases_beside_layers_that_have_none_pass_only_as_zeros(
    plain: Path, tmp_path: Path, value: float
) -> None:
    """auto-gptq wrote them beside every layer, with rotary frequencies that nobody reads."""
    more = {f"{LAYER}.bias": torch.full((128,), value), "model.rotary_emb.inv_freq": torch.ones(16)}
    folder = _changed(plain, tmp_path / "legacy", **more)
    if not value:
        load_model(folder, False, broken_checkpoint, left_over=True)
        return
    with pytest.raises(CellFailure, match=rf"1 tensors are left over: {LAYER}\.bias$"):
        load_model(folder, False, broken_checkpoint, left_over=True)


def _rounded(weight: torch.Tensor, bits: int) -> dict[str, torch.Tensor]:
    """A weight (out, in) in GPTQ's format, one group, codes around the middle."""
    middle = 2 ** (bits - 1)
    scale = weight.float().abs().amax(1, keepdim=True) / (middle - 1)
    codes = (torch.round(weight.float() / scale) + middle).clamp(0, 2**bits - 1).to(torch.int64).T
    per_word = 32 // bits
    shifts = bits * torch.arange(per_word)
    words = (codes.reshape(-1, per_word, codes.shape[1]) << shifts[:, None]).sum(1)
    zeros = torch.full((codes.shape[1],), middle - 1).reshape(1, -1, per_word)
    return {
        "qweight": (words & 0xFFFFFFFF).to(torch.uint32).view(torch.int32),
        "qzeros": ((zeros << shifts).sum(-1) & 0xFFFFFFFF).to(torch.uint32).view(torch.int32),
        "scales": scale.T.to(torch.float16).contiguous(),
        "g_idx": torch.zeros(codes.shape[0], dtype=torch.int32),
    }


def _gptq(plain: Path, target: Path, **widths: int) -> Path:
    """The model in GPTQ's format; layers that `widths` names have a width of their own, the others 4 bits."""
    shutil.copytree(plain, target)
    tensors = load_file(plain / "model.safetensors")
    for name in [n for n in tensors if "_proj" in n]:
        layer, own = name.removesuffix(".weight"), tensors.pop(name)
        width = widths.get(layer.rpartition(".")[2], 4)
        tensors |= {f"{layer}.{part}": values for part, values in _rounded(own, width).items()}
    save_file(tensors, target / "model.safetensors", {"format": "pt"})
    config = json.loads((target / "config.json").read_text())
    dynamic = {rf"+:.*\.{name}$": {"bits": width} for name, width in widths.items()}
    section = {"quant_method": "gptq", "bits": 4, "group_size": -1, "sym": True, "desc_act": False}
    config["quantization_config"] = section | ({"dynamic": dynamic} if dynamic else {})
    (target / "config.json").write_text(json.dumps(config))
    return target


def _weight_of(folder: Path) -> Any:
    return (
        load_dense(folder, quantization_config(folder), "cpu", False, "float32").get_submodule(LAYER).weight
    )


def test_layers_with_a_width_of_their_own_are_read_at_it(plain: Path, tmp_path: Path) -> None:
    original = load_file(plain / "model.safetensors")[f"{LAYER}.weight"].float()
    folders = _gptq(plain, tmp_path / "four"), _gptq(plain, tmp_path / "dynamic", up_proj=8)
    four, eight = (float((_weight_of(folder) - original).norm() / original.norm()) for folder in folders)
    assert 0.05 < four < 0.3 and eight < 0.02
    needs = [needs_gptqmodel(folder, quantization_config(folder), False) for folder in folders]
    assert needs == [False, True]


@pytest.mark.parametrize("part", ["qzeros", "scales"])
def test_a_part_that_a_dense_layer_needs_is_named(plain: Path, tmp_path: Path, part: str) -> None:
    whole = _gptq(plain, tmp_path / "four")
    with pytest.raises(CellFailure, match=rf"missing: {LAYER}\.{part}"):
        _weight_of(_changed(whole, tmp_path / "broken", f"{LAYER}.{part}"))


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_the_dense_form_leaves_out_biases_of_zeros_alone(plain: Path, tmp_path: Path, value: float) -> None:
    whole = _gptq(plain, tmp_path / "four")
    legacy = _changed(whole, tmp_path / "legacy", **{f"{LAYER}.bias": torch.full((128,), value)})
    if not value:
        assert torch.equal(_weight_of(legacy), _weight_of(whole))
        return
    with pytest.raises(CellFailure, match=rf"left over: {LAYER}\.bias"):
        _weight_of(legacy)
