"""Experts in one tensor are taken apart and put together again, however they lie."""

from __future__ import annotations

import pytest
import torch

from quantlab.models.experts import Layout, layout_of

PARTS = ("gate_proj", "up_proj")


@pytest.mark.parametrize("exchanged", [False, True])
@pytest.mark.parametrize("in_turn", [False, True])
@pytest.mark.parametrize("parts", [PARTS, ("down_proj",)])
def test_together_is_what_was_apart(parts: tuple[str, ...], exchanged: bool, in_turn: bool) -> None:
    layout = Layout(parts, exchanged, in_turn and len(parts) > 1, bias=False)
    tensor = torch.arange(3 * 8 * 6.0).reshape(3, 8, 6)
    apart = layout.apart(tensor)
    assert list(apart) == list(parts)
    assert torch.equal(layout.together(list(apart.values())), tensor)
    rows, columns = (6, 8) if exchanged else (8, 6)
    assert {tuple(part.shape) for part in apart.values()} == {(3, rows // len(parts), columns)}


def test_gate_and_up_follow_each_other_or_take_turns() -> None:
    rows = torch.arange(4.0)[None, :, None]
    follow, turns = Layout(PARTS, False, False, False), Layout(PARTS, False, True, False)
    assert follow.apart(rows)["up_proj"].flatten().tolist() == [2, 3]
    assert turns.apart(rows)["up_proj"].flatten().tolist() == [1, 3]


def test_the_layout_is_that_of_transformers_own_classes() -> None:
    """By what the class computes: an expert's matrices taken apart multiply as the class does."""
    from transformers import AutoConfig

    from quantlab.models.tiny.families import family

    for name, kind in (("gpt_oss", "GptOssExperts"), ("qwen3_moe", "Qwen3MoeExperts")):
        module = _experts(AutoConfig.for_model(name, **family(name).fields), name, kind)
        layout = layout_of(module, "down_proj")
        weight = layout.apart(module.down_proj.data)["down_proj"][0]
        hidden = torch.randn(1, weight.shape[1])
        own = hidden @ module.down_proj[0] if layout.exchanged else hidden @ module.down_proj[0].T
        assert torch.allclose(hidden @ weight.T, own)
        assert layout.exchanged == (name == "gpt_oss")
        assert layout_of(module, "gate_up_proj").in_turn == (name == "gpt_oss")


def _experts(config: object, name: str, kind: str) -> torch.nn.Module:
    import importlib

    module = importlib.import_module(f"transformers.models.{name}.modeling_{name}")
    made: torch.nn.Module = getattr(module, kind)(config)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter)
    return made
