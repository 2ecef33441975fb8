"""Tiny models of every family: they are whole, the same twice, and as uneven as trained ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from quantlab.errors import QuantlabError
from quantlab.files import sha256
from quantlab.models.tiny import build, families, family, write_tiny_model
from quantlab.models.wrappers import auto_class

BUILT = [name for name, entry in families().items() if not entry.unavailable]
MIXTURES = ("qwen3_moe", "mixtral", "deepseek_v3", "gpt_oss", "qwen3_5_moe_text", "granitemoehybrid")
TOKENS = torch.arange(48).reshape(1, -1) * 20 % 1000


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=TOKENS).logits.float()
    return found


@pytest.mark.parametrize("name", BUILT)
def test_a_family_reloads_to_the_same_logits_and_is_written_twice_alike(name: str, tmp_path: Path) -> None:
    folder = write_tiny_model(name, tmp_path / "once")
    kind: Any = auto_class(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    model, info = kind.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(info.values())
    found = logits(model)
    assert torch.allclose(found, logits(build(family(name))), atol=1e-4)
    probabilities = found.softmax(-1)
    entropy = -(probabilities * probabilities.log().nan_to_num(neginf=0)).sum(-1).mean()
    assert 0.5 < entropy < 5.0
    again = write_tiny_model(name, tmp_path / "twice")
    assert [sha256(path) for path in sorted(folder.iterdir())] == [
        sha256(path) for path in sorted(again.iterdir())
    ]


@pytest.mark.parametrize("name", MIXTURES)
def test_a_mixture_sends_tokens_to_different_experts(name: str) -> None:
    model = build(family(name))
    seen: list[set[int]] = []
    for module in model.modules():
        if type(module).__name__.endswith("Experts"):
            module.register_forward_hook(lambda _, given, __: seen.append(_experts(given)))
    logits(model)
    assert seen and all(len(experts) > 4 for experts in seen)


def _experts(given: tuple[torch.Tensor, ...]) -> set[int]:
    chosen = next(tensor for tensor in given if not tensor.is_floating_point())
    return set(chosen.unique().tolist())


def test_norms_that_add_one_are_spread_as_others() -> None:
    added = (
        dict(build(family("gemma3_text")).named_parameters())["model.layers.1.input_layernorm.weight"].float()
        + 1
    )
    plain = dict(build(family("llama")).named_parameters())["model.layers.1.input_layernorm.weight"].float()
    assert torch.allclose(added.mean(), plain.mean(), atol=0.01) and 0.4 < plain.std() < 0.9


def test_a_family_that_cannot_be_built_is_refused_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(QuantlabError, match="timm"):
        write_tiny_model("gemma3n", tmp_path / "model")
    with pytest.raises(QuantlabError, match="qwen3_moe"):
        write_tiny_model("qwen3_mo", tmp_path / "model")


def test_the_vocabulary_spells_every_text(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    for name in ("llama", "gemma2"):
        tokenizer = AutoTokenizer.from_pretrained(write_tiny_model(name, tmp_path / name))
        said = "The state of 17 waters, naïve: 東京 🚀"
        ids = tokenizer.encode(said, add_special_tokens=False)
        assert tokenizer.decode(ids) == said and len(tokenizer) == 1024
        assert "assistant" in tokenizer.apply_chat_template(
            [{"role": "user", "content": "a"}], tokenize=False, add_generation_prompt=True
        )
