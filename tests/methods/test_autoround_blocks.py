"""Each block of a model runs with its own arguments while auto-round calibrates."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from quantlab.methods._autoround_blocks import each_its_own, loss_of_streams, recorded
from quantlab.models.tiny import build, family

WINDOWS = [torch.randint(5, 900, (1, 48), generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]


def _blocks(model: Any) -> list[str]:
    return [f"model.layers.{layer}" for layer in range(len(model.model.layers))]


def _with_the_first_blocks(model: Any) -> torch.Tensor:
    """The last block's output where every block is called with what the first one was given, as auto-round
    does."""
    kept: dict[str, Any] = {}
    first = model.model.layers[0]
    hook = first.register_forward_pre_hook(
        lambda _, given, named: kept.update(named, hidden=given[0]), with_kwargs=True
    )
    with torch.no_grad():
        model(input_ids=WINDOWS[0], use_cache=False)
        hook.remove()
        hidden = kept.pop("hidden")
        for block in model.model.layers:
            out = block(hidden, **kept)
            hidden = out[0] if isinstance(out, tuple) else out
    return hidden


def _hidden(model: Any) -> torch.Tensor:
    """What the last norm is given in the model's own forward."""
    kept: list[torch.Tensor] = []
    hook = model.model.norm.register_forward_pre_hook(lambda _, given: kept.append(given[0]))
    with torch.no_grad():
        model(input_ids=WINDOWS[0], use_cache=False)
    hook.remove()
    return kept[0]


@pytest.mark.parametrize("name", ["gemma3_text", "deepseek_v4"])
def test_several_windows_at_once_are_what_each_is_alone(name: str) -> None:
    model, both = build(family(name)), torch.cat(WINDOWS)
    with torch.no_grad():
        exact = [model(input_ids=ids, use_cache=False).logits for ids in WINDOWS]
        with each_its_own(model, _blocks(model), WINDOWS):
            assert torch.allclose(model(input_ids=both, use_cache=False).logits, torch.cat(exact), atol=1e-4)


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "qwen3_5_text"])
def test_blocks_called_one_by_one_make_the_model(name: str) -> None:
    model = build(family(name))
    exact = _hidden(model)
    with each_its_own(model, _blocks(model), WINDOWS):
        assert torch.allclose(_with_the_first_blocks(model), exact, atol=1e-4)
        assert "hidden_states" in inspect.signature(model.model.layers[1].forward).parameters
    assert all("forward" not in vars(block) for block in model.model.layers)
    if name == "gemma3_text":  # sliding and full attention: the first block's arguments are another's
        assert not torch.allclose(_with_the_first_blocks(model), exact, atol=1e-4)


def test_what_depends_on_the_text_is_left_to_the_library() -> None:
    model = build(family("gemma4_text"))
    kept = recorded(model, _blocks(model), WINDOWS)
    assert "position_embeddings" in kept["model.layers.0"]
    assert "per_layer_input" not in kept["model.layers.0"] and "hidden_states" not in kept["model.layers.0"]


def test_token_ids_reach_a_block_under_a_name_that_auto_round_does_not_use() -> None:
    """It takes `input_ids` for the hidden states, and DeepSeek V4's first layer would choose by none."""
    model = build(family("deepseek_v4"))
    block, seen = model.model.layers[0], list[dict[str, Any]]()
    with each_its_own(model, _blocks(model), WINDOWS), torch.no_grad():
        hook = block.register_forward_pre_hook(lambda _, __, named: seen.append(named), with_kwargs=True)
        exact = model(input_ids=WINDOWS[0], use_cache=False).logits
        hook.remove()
        assert "input_ids" not in seen[0]
        ids = [
            value
            for value in seen[0].values()
            if isinstance(value, torch.Tensor) and value.dtype == torch.long
        ]
        assert any(torch.equal(value, WINDOWS[0]) for value in ids)
    with torch.no_grad():
        assert torch.equal(model(input_ids=WINDOWS[0], use_cache=False).logits, exact)


def test_one_window_alone_tells_nothing() -> None:
    model = build(family("llama"))
    assert recorded(model, _blocks(model), WINDOWS[:1]) == {}


def test_the_loss_of_several_streams_is_that_of_one_wide_output(monkeypatch: pytest.MonkeyPatch) -> None:
    from auto_round.algorithms.quantization.sign_round.quantizer import SignRoundQuantizer

    quantizer: Any = SignRoundQuantizer.__new__(SignRoundQuantizer)
    monkeypatch.setattr(SignRoundQuantizer, "model_context", SimpleNamespace(amp=False))
    random = torch.Generator().manual_seed(0)
    predicted, exact = (torch.randn(2, 6, 4, 8, generator=random) for _ in range(2))
    masks = [torch.tensor([[1, 1, 1, 1, 1, 0]]) for _ in range(2)]

    def loss(one: torch.Tensor, other: torch.Tensor) -> float:
        mse = torch.nn.functional.mse_loss
        return float(quantizer._get_loss(one, other, [0, 1], mse, "cpu", masks))

    expected = loss(predicted.flatten(2), exact.flatten(2))
    with pytest.raises(RuntimeError):
        loss(predicted, exact)
    with loss_of_streams():
        assert loss(predicted, exact) == expected == loss(predicted.flatten(2), exact.flatten(2))
