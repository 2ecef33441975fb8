"""A model that is quantized already is refused as MODEL, whatever says so, with what to do instead."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_tensors

from quantlab.errors import QuantlabError
from quantlab.methods._foreign import identify
from quantlab.models import check_folder

BY_CONFIG: dict[str, tuple[dict[str, Any], str]] = {
    "gptq": ({"quant_method": "gptq", "bits": 4}, "gptq, 4 bits"),
    "awq": ({"quant_method": "awq", "bits": 4}, "awq, 4 bits"),
    "fp8": ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8"),
    "bitsandbytes": ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes, 4 bits"),
    "mxfp4": ({"quant_method": "mxfp4"}, "mxfp4"),
    "compressed-tensors": ({"quant_method": "compressed-tensors"}, "compressed-tensors"),
    "ModelOpt": ({"quant_algo": "NVFP4"}, "nvfp4"),
}
BY_TENSOR = {
    "qweight": np.zeros((2, 4), np.int32),
    "weight_packed": np.zeros((2, 4), np.int32),
    "weight_scale_inv": np.zeros((1, 1), np.float32),
    "absmax": np.zeros(4, np.uint8),
    "SCB": np.zeros(4, np.float32),
    "gate_up_proj_blocks": np.zeros((2, 4), np.uint8),
}


def _pack(model: Path, name: str) -> None:
    tensors = {"a": np.zeros((2, 4), np.float32), f"layers.0.up.{name}": BY_TENSOR[name]}
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("nested", [False, True], ids=["its own", "of its text part"])
@pytest.mark.parametrize("kind", BY_CONFIG)
def test_a_quantized_model_is_refused_as_model(
    model: Path, write_config: Callable[..., None], kind: str, nested: bool
) -> None:
    _pack(model, "qweight")
    section = {"quantization_config": BY_CONFIG[kind][0]}
    write_config(model_type="llama", **({"text_config": section} if nested else section))
    with pytest.raises(QuantlabError, match="is quantized already") as raised:
        check_folder(model)
    assert BY_CONFIG[kind][1] in str(raised.value) and f"--checkpoint {model}" in str(raised.value)
    assert ("dequantize=True" in str(raised.value)) == (kind in ("fp8", "mxfp4", "compressed-tensors"))
    check_folder(model, source=False)


@pytest.mark.parametrize("name", BY_TENSOR)
def test_packed_tensors_give_it_away_where_the_config_says_nothing(model: Path, name: str) -> None:
    _pack(model, name)
    with pytest.raises(QuantlabError, match=rf"is quantized already \(.*layers.0.up.{name}\)"):
        check_folder(model)


def test_so_do_tensors_of_8_bit_floating_point(model: Path) -> None:
    save_tensors({"a.weight": torch.zeros(2, 4, dtype=torch.float8_e4m3fn)}, model / "model.safetensors")
    with pytest.raises(QuantlabError, match=r"by its tensor a\.weight"):
        check_folder(model)


@pytest.mark.parametrize("file", ["quantize_config.json", "quant_config.json"])
def test_settings_in_a_file_of_their_own_are_named(model: Path, file: str) -> None:
    _pack(model, "qweight")
    (model / file).write_text(json.dumps({"bits": 3, "quant_method": "gptq"}))
    with pytest.raises(QuantlabError, match=rf"gptq, 3 bits, by its tensor .* and {file}"):
        check_folder(model)
    with pytest.raises(QuantlabError, match=rf"has no quantization_config.*copy {file} into it"):
        identify(model)


def test_a_settings_file_beside_plain_weights_does_no_harm(model: Path) -> None:
    (model / "quantize_config.json").write_text(json.dumps({"bits": 4}))
    check_folder(model)
