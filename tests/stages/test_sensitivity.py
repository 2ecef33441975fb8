"""Parts swapped one at a time, on tiny models."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from quantlab.errors import CellFailure
from quantlab.stages.sensitivity import REST, WHOLE, Swap

IDS = torch.arange(3, 19)[None]


def _model() -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 3, "vocab_size": 64}
    return LlamaForCausalLM(LlamaConfig(**sizes)).eval()


def _logits(model: Any) -> np.ndarray:
    with torch.inference_mode():
        return model(input_ids=IDS, use_cache=False).logits[0].numpy()


@pytest.mark.parametrize("linears", [False, True])
def test_only_the_part_that_differs_costs(linears: bool) -> None:
    plain, other = _model(), _model()
    with torch.no_grad():
        other.model.layers[1].mlp.up_proj.weight += 0.1
    found = dict(Swap(plain, other, linears).logits(IDS))
    assert len(found) == (3 * 7 if linears else 3) + 2
    name = "block 1 mlp.up_proj" if linears else "block 1"
    changed = {part for part, logits in found.items() if not np.array_equal(logits, _logits(plain))}
    assert changed == {name, WHOLE} and np.array_equal(found[name], found[WHOLE])


def test_a_swapped_block_gives_what_a_model_with_that_block_gives_and_both_models_are_left_as_they_were() -> None:
    plain, other = _model(), _model()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += 0.02
    before, theirs = _logits(plain), _logits(other)
    by_hand = copy.deepcopy(plain)
    by_hand.model.layers[2] = copy.deepcopy(other.model.layers[2])
    swap = Swap(plain, other, linears=False)
    for _ in range(2):
        found = dict(swap.logits(IDS))
        assert np.array_equal(found["block 2"], _logits(by_hand)) and np.array_equal(found[WHOLE], theirs)
        assert not np.array_equal(found[REST], before) and np.array_equal(_logits(plain), before)


def test_linear_layers_of_a_scaled_block_are_refused() -> None:
    plain, other = _model(), _model()
    with torch.no_grad():
        other.model.layers[0].input_layernorm.weight *= 2
    with pytest.raises(CellFailure, match="means nothing alone"):
        Swap(plain, other, linears=True)
