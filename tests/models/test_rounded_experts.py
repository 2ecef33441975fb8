"""What enters an expert is rounded, whatever family it is of; without rounding the sum is transformers'
own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from quantlab.methods._fp8_rounding import round_tokens
from quantlab.models.experts import holds_experts, layout_of
from quantlab.models.rounded_experts import round_experts
from quantlab.models.tiny import build
from quantlab.models.tiny.families import family

FAMILIES = ("qwen3_moe", "gpt_oss", "nemotron_h", "deepseek_v3")
IDS = torch.from_numpy(np.random.default_rng(0).integers(4, 900, 24))[None]


def _logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = model(input_ids=IDS, use_cache=False).logits
    return logits


@pytest.mark.parametrize("name", FAMILIES)
def test_the_sum_is_transformers_own(name: str) -> None:
    model = build(family(name))
    before = _logits(model)
    assert round_experts(model, lambda inputs: inputs) == []
    assert torch.allclose(before, _logits(model), atol=1e-4)


@pytest.mark.parametrize("name", ["qwen3_moe", "gpt_oss"])
def test_both_products_of_an_expert_see_rounded_tokens(name: str) -> None:
    model = build(family(name))
    module = next(m for m in model.modules() if holds_experts(m))
    tokens = torch.randn(3, model.config.hidden_size)
    index, weights = torch.tensor([[0, 1], [1, 2], [2, 0]]), torch.full((3, 2), 0.5)
    first = torch.cat(list(layout_of(module, "gate_up_proj").apart(module.gate_up_proj).values()), dim=1)
    last = layout_of(module, "down_proj").apart(module.down_proj)["down_proj"]
    expected = torch.zeros_like(tokens)
    with torch.inference_mode():
        for token, experts in enumerate(index.tolist()):
            for number in experts:
                up = first[number] @ round_tokens(tokens[token])
                if name == "gpt_oss":
                    up += module.gate_up_proj_bias[number].reshape(-1, 2).T.flatten()
                    gate, rest = up.chunk(2)
                    inner = module._apply_gate(torch.stack((gate, rest), -1).flatten()[None])[0]
                else:
                    inner = module._apply_gate(up[None])[0]
                down = last[number] @ round_tokens(inner)
                expected[token] += 0.5 * (down + (module.down_proj_bias[number] if name == "gpt_oss" else 0))
        round_experts(model, round_tokens)
        assert torch.allclose(module(tokens, index, weights), expected, atol=1e-4)


def test_experts_that_are_no_module_of_that_kind_are_named() -> None:
    """Llama 4's are taken apart by transformers where a checkpoint is quantized, and are then layers."""
    model = build(family("llama4_text"))
    assert round_experts(model, round_tokens) == [
        "model.layers.1.feed_forward.experts",
        "model.layers.3.feed_forward.experts",
    ]
