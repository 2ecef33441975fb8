"""Checkpoints of compressed-tensors in transformers: whether FP8 kernels take them, one scale per token, and
experts that are stored one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from quantlab.engines._transformers.compressed import _see_tokens, experts_put_together, runs_in_fp8
from quantlab.files import write_json
from quantlab.methods._fp8_rounding import round_tokens
from quantlab.models.tiny import write_tiny_model

FP8 = {"type": "float", "num_bits": 8}


def _checkpoint(folder: Path, rows: int = 32, dtype: str = "bfloat16", weights: Any = FP8) -> Path:
    from safetensors.torch import save_file

    folder.mkdir()
    codes = torch.zeros(rows, 16, dtype=torch.float8_e4m3fn)
    save_file({"a.weight": codes, "a.weight_scale": torch.ones(rows, 1)}, folder / "model.safetensors")
    said = {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": weights}}}
    write_json(folder / "config.json", {"dtype": dtype, "quantization_config": said})
    return folder


@pytest.mark.parametrize(
    ("capability", "runs"), [(None, False), ((8, 0), False), ((8, 9), True), ((9, 0), True), ((12, 0), True)]
)
def test_gpu_row_6_which_gpus_multiply_in_fp8(
    capability: tuple[int, int] | None, runs: bool, tmp_path: Path
) -> None:
    assert runs_in_fp8(_checkpoint(tmp_path / "c"), capability) == runs


@pytest.mark.parametrize(
    "other", [{"rows": 24}, {"dtype": "float16"}, {"weights": {"type": "int", "num_bits": 8}}]
)
def test_gpu_row_6_what_the_kernels_do_not_take_is_unpacked(other: dict[str, Any], tmp_path: Path) -> None:
    assert not runs_in_fp8(_checkpoint(tmp_path / "c", **other), (9, 0))


@pytest.mark.parametrize("shape", [(6, 64), (2, 3, 64), (1, 1, 6, 64), (6, 1, 64)])
def test_each_token_has_a_scale_of_its_own(shape: tuple[int, ...]) -> None:
    """compressed-tensors' layer gives one to all tokens of two dimensions, and to a sequence of four."""
    from compressed_tensors.quantization import (
        QuantizationConfig,
        apply_quantization_config,
        preset_name_to_scheme,
    )

    layer = torch.nn.Linear(64, 64, bias=False)
    model = torch.nn.ModuleDict({"layer": layer})
    scheme = preset_name_to_scheme("FP8_DYNAMIC", ["Linear"])
    apply_quantization_config(
        model, QuantizationConfig(config_groups={"group_0": scheme}, quantization_status="compressed")
    )
    with torch.no_grad():
        layer.weight.copy_(torch.eye(64))
        inputs = torch.randn(shape) * torch.logspace(-3, 3, 6).reshape(*shape[:-1], 1)
        assert len(shape) == 3 or not torch.equal(layer(inputs), round_tokens(inputs))
        _see_tokens(layer)
        assert torch.equal(layer(inputs), round_tokens(inputs))


@pytest.mark.parametrize("family", ["gpt_oss", "qwen3_moe"])
def test_a_rule_for_experts_is_there_for_the_block_alone(family: str, tmp_path: Path) -> None:
    from transformers import conversion_mapping

    folder = write_tiny_model(family, tmp_path / family)
    if family == "gpt_oss":
        _store_apart(folder)
    before = conversion_mapping.get_checkpoint_conversion_mapping(family)
    with experts_put_together(folder, False):
        inside = conversion_mapping.get_checkpoint_conversion_mapping(family) or []
        added = len(inside) - len(before or [])
        assert added == (4 if family == "gpt_oss" else 0)  # two matrices and their biases
    after = conversion_mapping.get_checkpoint_conversion_mapping(family)
    assert len(after or []) == len(before or []) and (after is None) == (before is None)


def _store_apart(folder: Path) -> None:
    """Store the experts of gpt-oss one by one."""
    from safetensors.torch import load_file, save_file

    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        if ".experts." not in name:
            tensors[name] = tensor
            continue
        owner, _, key = name.rpartition(".")
        part = "bias" if key.endswith("_bias") else "weight"
        for number, each in enumerate(tensor.transpose(1, 2) if part == "weight" else tensor):
            for half, one in zip(("gate_proj", "up_proj"), (each[::2], each[1::2]), strict=True):
                if "gate_up" in key:
                    tensors[f"{owner}.{number}.{half}.{part}"] = one.contiguous()
            if "down" in key:
                tensors[f"{owner}.{number}.down_proj.{part}"] = each.contiguous()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
