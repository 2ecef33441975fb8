"""Llama 4's experts through bitsandbytes: quantized one by one, and loaded again by transformers alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from quantlab.methods._bitsandbytes_experts import _MODEL_TYPE, experts_apart, keep_apart
from quantlab.models.loading import load_model
from quantlab.models.tiny import write_tiny_model

EXPERTS = "model.layers.1.feed_forward.experts"


def _settings(bits: int) -> Any:
    from transformers import BitsAndBytesConfig

    if bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)


@pytest.mark.slow
@pytest.mark.parametrize(("bits", "error"), [(8, 0.01), (4, 0.1)])
def test_each_expert_is_the_source_s_after_saving_and_loading(
    bits: int, error: float, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM
    from transformers.integrations.bitsandbytes import dequantize_bnb_weight

    source = write_tiny_model("llama4_text", tmp_path / "source")
    how: dict[str, Any] = {"dtype": torch.bfloat16, "device_map": {"": "cpu"}}
    with experts_apart():
        model = load_model(source, False, quantization_config=_settings(bits), **how)
    keep_apart(model)
    model.save_pretrained(tmp_path / "packed")
    loaded: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "packed", device_map={"": "cpu"})
    stacked = load_file(source / "model.safetensors")
    for expert in (0, 7):
        gate, up = stacked[f"{EXPERTS}.gate_up_proj"][expert].float().chunk(2, -1)
        down = stacked[f"{EXPERTS}.down_proj"][expert].float()
        for name, exact in (("gate_proj", gate), ("up_proj", up), ("down_proj", down)):
            layer = loaded.get_submodule(f"{EXPERTS}.{expert}.{name}")
            found = dequantize_bnb_weight(layer.weight, getattr(layer, "state", None)).float()
            assert (found - exact.T).abs().max() < 1.5 * error * exact.abs().max()
    for layer in range(4):
        router = loaded.get_submodule(f"model.layers.{layer}.feed_forward")
        assert not hasattr(router, "router") or router.router.weight.dtype == torch.bfloat16


def test_nothing_of_it_stays_after_the_block() -> None:
    from transformers import conversion_mapping
    from transformers.quantizers.base import HfQuantizer

    before = HfQuantizer.preprocess_model
    with pytest.raises(ZeroDivisionError), experts_apart():
        assert conversion_mapping.get_checkpoint_conversion_mapping(_MODEL_TYPE)
        raise ZeroDivisionError
    assert HfQuantizer.preprocess_model is before
    assert conversion_mapping.get_checkpoint_conversion_mapping(_MODEL_TYPE) is None
