"""The first layers of a model are a model of their own, and compute what they compute in the whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from quantlab.errors import QuantlabError
from quantlab.models.first_layers import (
    FEWEST,
    first_layers_bytes,
    layers_needed,
    layers_of,
    write_first_layers,
)
from quantlab.models.loading import load_model, require_whole
from quantlab.models.tiny import write_tiny_model

TOKENS = torch.arange(20).reshape(1, -1) * 47 % 1000
NEEDED = {
    "llama": 2,
    "gemma3_text": 6,  # the first with full attention
    "deepseek_v3": 2,  # a dense layer, then mixtures
    "deepseek_v4": 4,  # every ratio of compression
    "llama4_text": 4,  # without rotary embedding at the fourth
    "qwen3_next": 4,
    "nemotron_h": 4,
    "lfm2_moe": 4,
    "gpt_oss": 2,
    "gpt2": 2,
}


@pytest.fixture(params=NEEDED)
def family(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def _after(model: Any, layers: int) -> torch.Tensor:
    """What the stream is behind so many layers."""
    inner = getattr(model, "model", None) or getattr(model, "backbone", None) or model.transformer
    blocks = inner.h if hasattr(inner, "h") else inner.layers
    found: list[torch.Tensor] = []
    hook = blocks[layers - 1].register_forward_hook(
        lambda _m, _i, output: found.append(output[0] if isinstance(output, tuple) else output)
    )
    with torch.inference_mode():
        model(input_ids=TOKENS, use_cache=False)
    hook.remove()
    return found[0]


def test_a_copy_of_the_layers_needed_is_whole_and_computes_the_same(family: str, tmp_path: Path) -> None:
    whole = write_tiny_model(family, tmp_path / "whole")
    layers = layers_needed(whole, False)
    assert layers == NEEDED[family]
    write_first_layers(whole, tmp_path / "copy", layers)
    require_whole(tmp_path / "copy", False)
    assert layers_of(tmp_path / "copy") == layers
    size = sum(path.stat().st_size for path in (tmp_path / "copy").glob("*.safetensors"))
    assert first_layers_bytes(whole, layers) <= size < first_layers_bytes(whole, layers) + 50_000
    first, second = (load_model(tmp_path / name, False, dtype=torch.float32) for name in ("whole", "copy"))
    assert torch.allclose(_after(first, layers), _after(second, layers), atol=1e-5)


def test_prediction_layers_and_lists_by_layer_are_cut(tmp_path: Path) -> None:
    whole = write_tiny_model("llama", tmp_path / "whole")
    config = json.loads((whole / "config.json").read_text())
    more = {"num_nextn_predict_layers": 1, "layer_types": list("abcd"), "compress_ratios": [0, 1, 2, 3, 9]}
    (whole / "config.json").write_text(json.dumps(config | more | {"hybrid_override_pattern": "M-M*"}))
    write_first_layers(whole, tmp_path / "copy", FEWEST)
    made = json.loads((tmp_path / "copy" / "config.json").read_text())
    assert made["num_hidden_layers"] == 2 and made["num_nextn_predict_layers"] == 0
    assert made["layer_types"] == ["a", "b"] and made["compress_ratios"] == [0, 1]
    assert made["hybrid_override_pattern"] == "M-" and made["vocab_size"] == config["vocab_size"]


def test_a_config_without_layers_is_refused(tmp_path: Path) -> None:
    whole = write_tiny_model("llama", tmp_path / "whole")
    (whole / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(QuantlabError, match="says no number of layers"):
        write_first_layers(whole, tmp_path / "copy", FEWEST)
