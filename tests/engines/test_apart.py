"""Packed layers that transformers' class of a model does not have."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from quantlab.engines._transformers import apart, dense
from quantlab.engines._transformers.apart import layers_apart
from quantlab.engines._transformers.as_stored import needs_gptqmodel, opening_note
from quantlab.errors import CellFailure
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
    assert layers_apart(folder, trust_remote_code=False) == tuple(apart)
    assert needs_gptqmodel(folder, {"quant_method": "gptq"}, trust_remote_code=False) == bool(apart)
    assert not needs_gptqmodel(folder, {"quant_method": "auto-round"}, trust_remote_code=False)


def test_what_transformers_alone_leaves_out_is_said(tmp_path: Path) -> None:
    """Else a mixture that somebody opens with it answers with random experts, and a warning."""
    gptq = {"quant_method": "gptq"}
    said = opening_note(_checkpoint(tmp_path / "mixture", "qwen3_moe", [_PROJECTION, _EXPERT]), gptq, False)
    assert said and said.startswith(
        f"transformers alone leaves 1 of its packed layers out, such as {_EXPERT}"
    )
    assert said.endswith("open it with GPTQModel.load, as quantlab does.")
    assert opening_note(_checkpoint(tmp_path / "dense", "llama", [_PROJECTION]), gptq, False) is None
    widths = opening_note(tmp_path / "dense", gptq | {"dynamic": {"+:x": {"bits": 8}}}, False)
    assert widths and widths.startswith("transformers alone does not read its layers")


@pytest.mark.parametrize(("method", "library"), [("gptq", "gptqmodel"), ("auto-round", "transformers")])
def test_the_dense_form_does_not_ask_replaced_classes_who_loads(
    method: str, library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    asked = []

    def opened(by: str) -> torch.nn.Module:
        asked.append(by)
        return torch.nn.Linear(2, 2)

    monkeypatch.setattr(dense, "load_with_gptqmodel", lambda *_: opened("gptqmodel"))
    monkeypatch.setattr(dense, "load_as_stored", lambda *_: opened("transformers"))
    dense._dense_apart(tmp_path, {"quant_method": method}, "cpu", False, torch.float32)
    assert asked == [library]


def test_a_layer_under_the_release_s_name_has_its_place() -> None:
    mixtral, llama = build(family("mixtral")), build(family("llama"))
    gate = "model.layers.0.block_sparse_moe.gate"
    assert dense.place_in(mixtral, gate) == "model.layers.0.mlp.gate"
    assert dense.place_in(llama, _PROJECTION) == _PROJECTION


class _Packed(torch.nn.Module):
    """Stands for a packed layer of GPTQModel, whose codes are buffers."""


@pytest.mark.parametrize(
    ("stored", "lacking"),
    [
        (("qweight", "scales"), None),
        (("weight", "weight_scale_inv"), None),
        ((), "b.qweight"),
        (("qweight",), "b.scales"),
    ],
)
def test_a_packed_layer_without_its_tensors_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: tuple[str, ...], lacking: str | None
) -> None:
    names = [f"{layer}.{part}" for layer in "ac" for part in ("qweight", "scales")]
    if stored[:1] == ("weight",):
        names = [f"{layer}.{part}" for layer in "ac" for part in stored]
    names += [f"b.{part}" for part in stored]
    save_file({name: torch.zeros(8, dtype=torch.int32) for name in names}, tmp_path / "model.safetensors")
    monkeypatch.setattr(apart, "_is_packed", lambda layer: isinstance(layer, _Packed))
    model = torch.nn.ModuleDict({layer: _Packed() for layer in "abc"})
    if lacking is None:
        apart._require_complete(model, tmp_path)
        return
    with pytest.raises(CellFailure, match=f"1 tensors are missing from the files: {lacking}"):
        apart._require_complete(model, tmp_path)
