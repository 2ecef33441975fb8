"""Releases that are stored quantized."""

from __future__ import annotations

from typing import Any

import pytest

from quantlab.catalogue.config import known_config
from quantlab.planning.fit import VariantPlan, plan_model

MXFP4 = {
    "quant_method": "mxfp4",
    "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"],
}


def as_stored(alias: str, **more: Any) -> VariantPlan:
    found = known_config(alias)
    assert found is not None
    first = plan_model({**found.config, **more}, name=alias, place_gpus=False).variants[0]
    assert first.stored
    return first


def test_experts_alone_are_packed_where_the_config_keeps_the_rest() -> None:
    packed = as_stored("gpt-oss-20b", quantization_config=MXFP4)
    everything = as_stored("gpt-oss-20b", quantization_config={"quant_method": "mxfp4"})
    assert packed.bits_per_weight and everything.bits_per_weight
    assert 4.25 < everything.bits_per_weight < packed.bits_per_weight < 6


def test_patterns_and_layer_numbers_name_modules() -> None:
    config = {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"num_bits": 4, "group_size": 32}}}}
    plain = as_stored("llama-3.1-8b", quantization_config=config).weight_bytes
    kept = as_stored("llama-3.1-8b", quantization_config=config | {"ignore": ["lm_head", "re:.*self_attn.*"]}).weight_bytes
    by_layer = as_stored("llama-3.1-8b", quantization_config=config | {"ignore": ["model.layers.0.self_attn", "re:("]}).weight_bytes
    assert plain and kept and by_layer
    assert kept == by_layer == plain + 1_342_177_280 * (16 - 4.5) / 8


def test_experts_in_a_format_of_their_own() -> None:
    found = as_stored("deepseek-v4-flash")
    assert found.bits_per_weight == pytest.approx(4.38, abs=0.01)


def test_it_stands_beside_the_methods_and_not_among_them() -> None:
    found = known_config("deepseek-v4-flash")
    assert found is not None
    plan = plan_model(found.config, name="v4", place_gpus=False)
    assert plan.stored_as == "fp8 (8 bits, experts in 4.25)"
    assert plan.weight_bytes["fp8"]["8"] > 1.5 * (plan.variants[0].weight_bytes or 0)
    assert not any(v.stored for v in plan_model(found.config, name="v4", methods=["gptq-4"], place_gpus=False).variants)
