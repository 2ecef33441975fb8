"""Which matrices of a model take their inputs along the first of the last two dimensions."""

from __future__ import annotations

import pytest

from quantlab.models.loading import build_on_meta
from quantlab.models.matrices import inputs_first
from quantlab.models.tiny import family


def _turned(name: str) -> set[str]:
    """The last words of the names, of the tiny model's shapes."""
    from transformers import AutoConfig

    chosen = family(name)
    model = build_on_meta(AutoConfig.for_model(chosen.kind, **dict(chosen.fields)), False)
    return {parameter.rpartition(".")[2] for parameter in inputs_first(model)}


@pytest.mark.parametrize("name", ["llama", "qwen3_moe", "deepseek_v3", "granitemoehybrid", "nemotron_h"])
def test_most_families_have_none(name: str) -> None:
    assert _turned(name) == set()


@pytest.mark.parametrize("name", ["gpt_oss", "llama4_text"])
def test_experts_in_the_other_order(name: str) -> None:
    assert _turned(name) == {"gate_up_proj", "down_proj"}


def test_every_layer_of_gpt2() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=32, n_head=2, vocab_size=64))
    layers = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    assert inputs_first(model) == {f"transformer.h.0.{layer}.weight" for layer in layers}
