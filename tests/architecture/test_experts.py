"""The names that architectures have for their experts mean the same wherever a config is read."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from quantlab.architecture.estimate import estimate
from quantlab.architecture.fields import EXPERT_COUNTS, EXPERTS_PER_TOKEN, experts_of
from quantlab.architecture.shape import read_architecture

PLAIN: dict[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "hidden_size": 64,
    "intermediate_size": 128,
    "vocab_size": 256,
}


@pytest.mark.parametrize("used", EXPERTS_PER_TOKEN)
@pytest.mark.parametrize("count", EXPERT_COUNTS)
def test_every_pair_of_names_is_read_alike(count: str, used: str) -> None:
    config = PLAIN | {count: 8, used: 2}
    shape, guess = read_architecture(config), estimate(config, "a test")
    assert (shape.experts, shape.experts_per_token) == (guess.experts, guess.experts_per_token) == (8, 2)
    assert experts_of(SimpleNamespace(**config)) == (8, 2)
    assert experts_of(SimpleNamespace(ffn_config=SimpleNamespace(**{count: 8, used: 2}))) == (8, 2)


@pytest.mark.parametrize(
    ("given", "read"), [({}, (0, 0)), ({"num_experts": None}, (0, 0)), ({"num_experts": 0}, (0, 0))]
)
def test_a_config_without_experts_has_none(given: dict[str, Any], read: tuple[int, int]) -> None:
    assert experts_of(SimpleNamespace(**given)) == read


def test_of_a_size_per_layer_the_largest_is_taken() -> None:
    assert experts_of(SimpleNamespace(num_experts=[1, 16, 16], moe_topk=[1, 2, 2])) == (16, 2)
