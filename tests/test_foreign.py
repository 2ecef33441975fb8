"""Somebody else's checkpoint is known by what it says of itself, and named by its contents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from quantlab.errors import QuantlabError
from quantlab.foreign import identify


def _checkpoint(folder: Path, config: dict[str, Any] | None, value: float = 0.0) -> Path:
    folder.mkdir(exist_ok=True)
    full = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]} | ({"quantization_config": config} if config else {})
    (folder / "config.json").write_text(json.dumps(full))
    save_file({"a.weight": torch.full((4, 4), value)}, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("config", "method", "bits"),
    [
        ({"quant_method": "gptq", "bits": 3}, "gptq", 3),
        ({"quant_method": "awq", "bits": 4, "version": "gemm"}, "awq", 4),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes", 8),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes", 4),
        ({"quant_method": "auto-round", "bits": 2}, "autoround", 2),
        ({"quant_method": "fp8"}, "fp8", 8),
    ],
)
def test_methods_and_widths(config: dict[str, Any], method: str, bits: int, tmp_path: Path) -> None:
    found = identify(_checkpoint(tmp_path / "c", config))
    assert (found.method, found.bits) == (method, bits) and found.external


def test_the_name_is_of_the_contents(tmp_path: Path) -> None:
    config = {"quant_method": "gptq", "bits": 4}
    first, same, other = (_checkpoint(tmp_path / name, config, value) for name, value in (("a", 0.0), ("b", 0.0), ("c", 1.0)))
    assert identify(first) == identify(same) != identify(other)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (None, "is not quantized"),
        ({"quant_method": "hqq", "bits": 4}, "unknown quantization format 'hqq'"),
        ({"quant_method": "gptq", "bits": 7}, "says 7 bits of gptq: known are 8, 4, 3, 2"),
    ],
)
def test_what_is_no_checkpoint_of_ours_is_refused(config: dict[str, Any] | None, said: str, tmp_path: Path) -> None:
    with pytest.raises(QuantlabError, match=said):
        identify(_checkpoint(tmp_path / "c", config))
