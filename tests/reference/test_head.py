"""The head gives a model's own logits back from its hidden states, whatever it does after its matrix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from quantlab.errors import QuantlabError
from quantlab.reference.head import Head, HeadSpec, load_head, spec_of

SMALL = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
MODELS: dict[str, tuple[dict[str, Any], HeadSpec]] = {
    "llama": ({"tie_word_embeddings": False}, HeadSpec()),
    "qwen2": ({"tie_word_embeddings": True, "num_key_value_heads": 2}, HeadSpec()),
    "gemma2": (
        {"final_logit_softcapping": 0.5, "head_dim": 8, "num_key_value_heads": 2},
        HeadSpec(softcap=0.5),
    ),
    "cohere": ({"logit_scale": 0.25, "tie_word_embeddings": True}, HeadSpec(multiplier=0.25)),
    "granite": ({"logits_scaling": 6.0}, HeadSpec(divisor=6.0)),
    "hyperclovax": ({"logits_scaling": 0.3, "pad_token_id": 0}, HeadSpec(multiplier=0.3)),
    "phi": ({}, HeadSpec()),  # its head has a bias
}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_head_gives_the_models_logits_back(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    settings, spec = MODELS[kind]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SMALL | settings)).to(dtype).eval()
    module, caught = model.get_output_embeddings(), []
    if module.bias is not None:
        torch.nn.init.normal_(module.bias)
    assert (module.bias is not None) == (kind == "phi") and spec_of(model.config) == spec
    module.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    with torch.inference_mode():
        logits = model(input_ids=torch.randint(0, 300, (1, 24)), use_cache=False).logits[0].float().numpy()
    made = Head(module.weight.detach(), None if module.bias is None else module.bias.detach(), spec)
    made.save(tmp_path / "head.safetensors")
    again = load_head(tmp_path / "head.safetensors", spec).logits(caught[0][0].float().numpy())
    if dtype == torch.float32:
        assert np.array_equal(again, logits) or np.abs(again - logits).max() < 1e-6
    else:
        assert np.abs(again - logits).max() <= 2**-7 * np.abs(logits).max()
    assert logits.std() > 0.01


@pytest.mark.parametrize("scaling", [6.0, 10.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_scale_that_is_no_power_of_two_is_exact(scaling: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = (
        AutoModelForCausalLM.from_config(
            AutoConfig.for_model("granite", **SMALL | {"logits_scaling": scaling})
        )
        .to(dtype)
        .eval()
    )
    module, caught = model.get_output_embeddings(), []
    module.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    with torch.inference_mode():
        logits = model(input_ids=torch.randint(0, 300, (1, 24)), use_cache=False).logits[0].float().numpy()
    hidden = caught[0][0].float().numpy()
    assert np.array_equal(Head(module.weight.detach(), None, spec_of(model.config)).logits(hidden), logits)
    if dtype == torch.float32:  # a reciprocal is another number
        assert not np.array_equal(
            Head(module.weight.detach(), None, HeadSpec(multiplier=1 / scaling)).logits(hidden), logits
        )


def test_without_a_head_the_way_out_is_said(tmp_path: Path) -> None:
    with pytest.raises(QuantlabError, match="run `quantlab reference` first"):
        load_head(tmp_path / "head.safetensors", HeadSpec())
