"""Which experts a transformers model sends a token to is what its router does, in every family of mixtures: the
token's output changes with the weights of these experts, and of no other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from quantlab.engines._transformers.experts import ChosenExperts, watched
from quantlab.models.tiny import build, families, family

TOKENS = torch.arange(24).reshape(1, -1) * 41 % 1000
EXPERTS = 8


def _is_mixture(name: str) -> bool:
    fields = family(name).fields
    return any("experts" in key for key in (*fields, *fields.get("text_config", ())))


MIXTURES = [name for name, entry in families().items() if not entry.unavailable and _is_mixture(name)]


def _run(model: Any) -> dict[int, np.ndarray]:
    with torch.inference_mode(), watched(model) as experts:
        model(input_ids=TOKENS, use_cache=False)
        chosen = experts.take(TOKENS.numel())
    assert chosen.reason is None
    return dict(chosen.by_block)


def _mixture(model: Any, block: int) -> Any:
    named = dict(model.named_modules())
    name = next(n for n in named if n.endswith(".experts") and f".{block}." in n)
    return named[name.removesuffix(".experts")]


def _matrices(mixture: Any) -> torch.Tensor:
    """The last projection of all experts (experts, ...)."""
    found: torch.Tensor = mixture.experts.down_proj
    assert found.ndim == 3 and found.shape[0] == EXPERTS
    return found


def _sets_by_effect(model: Any, block: int) -> list[set[int]]:
    """By token, the experts whose weights change what the mixture gives for it."""
    mixture = _mixture(model, block)
    outputs: list[torch.Tensor] = []

    def keep(_module: Any, _inputs: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) else output
        outputs.append(first.reshape(TOKENS.numel(), -1).clone())

    hook = mixture.register_forward_hook(keep)
    matrices = _matrices(mixture)
    try:
        with torch.no_grad():
            model(input_ids=TOKENS, use_cache=False)
            for expert in range(EXPERTS):
                before = matrices[expert].clone()
                matrices[expert].mul_(3)
                model(input_ids=TOKENS, use_cache=False)
                matrices[expert].copy_(before)
    finally:
        hook.remove()
    whole, *changed = outputs
    moved = torch.stack([(each != whole).any(1) for each in changed], dim=1)  # (tokens, experts)
    return [set(row.nonzero()[:, 0].tolist()) for row in moved]


@pytest.mark.parametrize("name", MIXTURES)
def test_the_chosen_experts_are_those_that_have_an_effect(name: str) -> None:
    model = build(family(name))
    chosen = _run(model)
    assert chosen
    for block in (min(chosen), max(chosen)):
        assert [set(row) for row in chosen[block].tolist()] == _sets_by_effect(model, block)


def test_families_with_groups_hash_tables_and_scores_alone_are_among_them() -> None:
    assert {"deepseek_v3", "deepseek_v4", "llama4_text", "gpt_oss", "qwen3_5_moe"} <= set(MIXTURES)


def test_a_model_without_experts_has_none_and_no_reason() -> None:
    assert _run(build(family("llama"))) == {}


def test_a_router_that_does_not_tell_is_a_reason() -> None:
    model = build(family("qwen3_moe"))
    experts = ChosenExperts(model)
    assert "router of block 0 does not tell" in (experts.take(TOKENS.numel()).reason or "")  # nothing ran
    model(input_ids=TOKENS, use_cache=False)
    assert "does not tell which 2 experts" in (experts.take(TOKENS.numel() + 1).reason or "")
    experts.remove()
    model(input_ids=TOKENS, use_cache=False)
    assert experts.take(TOKENS.numel()).reason
