"""LLM.int8 layers with inputs of four dimensions, and plain layers beside them in the dtype that is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from quantlab.engines._transformers.as_stored import Wanted
from quantlab.engines._transformers.int8 import flattened, take_any_shape
from quantlab.engines._transformers.load import load
from quantlab.models.tiny import write_tiny_model


def _layer() -> Any:
    from bitsandbytes.nn import Linear8bitLt

    torch.manual_seed(0)
    plain = torch.nn.Linear(64, 32, dtype=torch.float16)
    layer = Linear8bitLt(64, 32, has_fp16_weights=False, threshold=6.0)
    layer.load_state_dict(plain.state_dict())
    return torch.nn.Sequential(layer.to("cpu"))


@pytest.mark.parametrize("outlier", [1.0, 50.0])
def test_four_dimensions_give_what_two_give(outlier: float) -> None:
    model = _layer()
    take_any_shape(model)
    flat = torch.randn(2 * 3 * 5, 64, generator=torch.Generator().manual_seed(1)).half()
    flat[7, 9] = outlier
    assert flattened(model) == []
    expected = model(flat)
    assert torch.equal(model(flat.reshape(2, 3, 5, 64)), expected.reshape(2, 3, 5, 32))
    assert flattened(model) == ["0"]
    take_any_shape(model)  # a second time changes nothing
    assert torch.equal(model(flat), expected)


@pytest.mark.slow
def test_plain_layers_are_in_float32_where_that_is_asked_for(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    source = write_tiny_model("gpt_oss", tmp_path / "source")
    settings = BitsAndBytesConfig(
        load_in_8bit=True,
        llm_int8_skip_modules=["lm_head", *(f"model.layers.{n}.mlp.router" for n in range(4))],
    )
    model: Any = AutoModelForCausalLM.from_pretrained(
        source, quantization_config=settings, dtype=torch.bfloat16, device_map={"": "cpu"}
    )
    model.save_pretrained(tmp_path / "packed")
    loaded = load(Wanted(tmp_path / "packed", "cpu", dtype="float32"))
    floats = {name: value.dtype for name, value in loaded.named_parameters() if value.is_floating_point()}
    assert set(floats.values()) == {torch.float32}
    ids = torch.arange(40)[None]
    with torch.inference_mode():
        logits = loaded(input_ids=ids, use_cache=False).logits
        half = load(Wanted(tmp_path / "packed", "cpu"))(input_ids=ids, use_cache=False).logits
    assert logits.dtype == torch.float32 and (logits - half.float()).abs().mean() < 0.1
