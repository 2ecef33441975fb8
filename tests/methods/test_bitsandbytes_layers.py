"""Which layers bitsandbytes quantizes: no router, no gate of one output, and GPT-2's Conv1D as well."""

from __future__ import annotations

import pytest
import torch

from quantlab.methods._bitsandbytes_layers import Layers, choose, note
from quantlab.models.tiny import family


def layers(name: str) -> Layers:
    """Of the family's tiny model, without weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    chosen = family(name)
    with torch.device("meta"):
        return choose(AutoModelForCausalLM.from_config(AutoConfig.for_model(chosen.kind, **chosen.fields)))


@pytest.mark.parametrize("name", ["qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"])
def test_gates_that_the_kernel_cannot_pack_stay_and_are_named(name: str) -> None:
    found = layers(name)
    left = {part.rpartition(".")[2] for part in found.unpackable}
    assert left <= {"in_proj_a", "in_proj_b", "in_proj_ba"} and left
    assert sorted(left)[0] in note(found) and set(found.unpackable) <= set(found.skipped)


def test_a_gate_of_one_output_is_a_router() -> None:
    skipped = layers("qwen3_5_moe_text").skipped
    assert sum(name.endswith("shared_expert_gate") for name in skipped) == 4
    assert not any(name.endswith("shared_expert_gate") for name in layers("qwen3_5_moe_text").quantized)


def test_the_head_stays_and_every_projection_is_quantized() -> None:
    found = layers("llama")
    assert len(found.quantized) == 4 * 7 and "lm_head" in found.skipped and not found.unpackable


def test_experts_of_llama_4_are_quantized_one_by_one() -> None:
    """Two of four layers are mixtures, of 8 experts of three matrices each."""
    found = layers("llama4_text")
    assert sum(".experts." in name for name in found.quantized) == 2 * 8 * 3 and not found.unpackable


def test_layers_of_gpt_2_are_counted() -> None:
    assert len(layers("gpt2").quantized) == 4 * 4


def test_what_is_no_plain_linear_is_not_asked_for() -> None:
    """DeepSeek V4's grouped output is a class of its own, which transformers does not replace."""
    assert not any(name.endswith("o_a_proj") for name in layers("deepseek_v4").quantized)
