"""Releases that are stored quantized."""

from __future__ import annotations

from typing import Any

import pytest

from quantlab.catalogue.config import known_config
from quantlab.planning.fit import VariantPlan, plan_model
from quantlab.planning.stored import _named

MXFP4 = {
    "quant_method": "mxfp4",
    "modules_to_not_convert": [
        "model.layers.*.self_attn",
        "model.layers.*.mlp.router",
        "model.embed_tokens",
        "lm_head",
    ],
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


INT8 = {
    "quant_method": "compressed-tensors",
    "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "float"}}},
}
NVFP4 = {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "float", "group_size": 16}}}
LINEARS, REST = 6_979_321_856, 2_101_878_784
"""Weights of the linears of llama-3.1-8b, and bytes of everything else in 16 bits."""


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"quant_method": "modelopt", "quant_algo": "NVFP4", "config_groups": NVFP4}, 6_027_747_328),
        ({"quant_method": "compressed-tensors", "config_groups": NVFP4}, 6_027_747_328),
        ({"quant_algo": "NVFP4"}, 6_027_747_328),
        ({"quantization": {"quant_algo": "NVFP4", "group_size": 16}}, 6_027_747_328),
        ({"quant_method": "fp8", "modules_to_not_convert": ["model.layers.0.mlp.down_proj"]}, 9_139_920_896),
        (
            {
                "quant_method": "fp8",
                "modules_to_not_convert": [f"model.layers.{i}.mlp.gate" for i in range(32)],
            },
            9_081_200_640,
        ),
        (INT8 | {"ignore": [f"model.layers.{i}.self_attn*" for i in range(32)]}, 10_423_377_920),
        (INT8 | {"ignore": ["model.layers.*.self_attn"]}, 10_423_377_920),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, REST + LINEARS + LINEARS // 128**2 * 4),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, 5_732_835_328),
        ({"quant_method": "gptq", "bits": "4", "group_size": "128"}, 5_732_835_328),
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, 5_732_835_328 - 4_980_736),  # without g_idx
    ],
)
def test_bytes_by_hand(config: dict[str, Any], expected: int) -> None:
    assert as_stored("llama-3.1-8b", quantization_config=config).weight_bytes == expected


def test_bitsandbytes_with_nested_scales() -> None:
    config = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_use_double_quant": True}
    nested = as_stored("llama-3.1-8b", quantization_config=config).weight_bytes or 0
    plain = (
        as_stored(
            "llama-3.1-8b", quantization_config=config | {"bnb_4bit_use_double_quant": False}
        ).weight_bytes
        or 0
    )
    assert nested == pytest.approx(5_702_336_446, rel=1e-4)
    assert plain - nested == pytest.approx(LINEARS / 64 * (4 - 1 - 4 / 256), rel=1e-2)


def test_what_a_pattern_names() -> None:
    names = _named(
        ("model.language_model.layers.3.mlp", "lm_head", "model.layers.5*", r"re:.*\.q_proj$", "re:(")
    )
    kept = (
        "model.layers.3.mlp.up_proj",
        "model.layers.5.mlp.gate",
        "model.layers.51.mlp.gate",
        "model.language_model.layers.0.q_proj",
    )
    assert all(names(module) for module in kept)
    assert not any(
        names(module)
        for module in ("model.layers.3.mlp_extra", "model.layers.33.mlp", "model.layers.0.q_proj_a")
    )


def test_targets_name_what_alone_is_quantized() -> None:
    group = {"targets": ["re:.*mlp.experts.*"], "weights": {"num_bits": 4, "group_size": 32}}
    some = as_stored(
        "mixtral-8x7b",
        quantization_config={"quant_method": "compressed-tensors", "config_groups": {"g": group}},
    )
    every = as_stored(
        "mixtral-8x7b",
        quantization_config={
            "quant_method": "compressed-tensors",
            "config_groups": {"g": group | {"targets": ["Linear"]}},
        },
    )
    assert some.weight_bytes and every.weight_bytes and some.weight_bytes > every.weight_bytes


def test_patterns_and_layer_numbers_name_modules() -> None:
    config = {
        "quant_method": "compressed-tensors",
        "config_groups": {"group_0": {"weights": {"num_bits": 4, "group_size": 32}}},
    }
    plain = as_stored("llama-3.1-8b", quantization_config=config).weight_bytes
    kept = as_stored(
        "llama-3.1-8b", quantization_config=config | {"ignore": ["lm_head", "re:.*self_attn.*"]}
    ).weight_bytes
    by_layer = as_stored(
        "llama-3.1-8b", quantization_config=config | {"ignore": ["model.layers.0.self_attn", "re:("]}
    ).weight_bytes
    assert plain and kept and by_layer
    assert kept == plain + 1_342_177_280 * (16 - 4.5) / 8
    assert by_layer == plain + 1_342_177_280 // 32 * (16 - 4.5) / 8


def test_experts_in_a_format_of_their_own() -> None:
    found = as_stored("deepseek-v4-flash")
    assert found.bits_per_weight == pytest.approx(4.38, abs=0.01)


def test_it_stands_beside_the_methods_and_not_among_them() -> None:
    found = known_config("deepseek-v4-flash")
    assert found is not None
    plan = plan_model(found.config, name="v4", place_gpus=False)
    assert plan.stored_as == "fp8 (8 bits, experts in 4.25)"
    assert plan.weight_bytes["fp8"]["8"] > 1.5 * (plan.variants[0].weight_bytes or 0)
    assert not any(
        v.stored for v in plan_model(found.config, name="v4", methods=["gptq-4"], place_gpus=False).variants
    )


@pytest.mark.parametrize(
    ("alias", "bytes_total", "within"),
    [
        ("gpt-oss-20b", 13_761_264_768, 0),  # metadata.total_size of its model.safetensors.index.json
        ("gpt-oss-120b", 60.8 * 2**30, 0.001),  # its model card
        ("deepseek-v3", 685e9, 0.004),  # about a byte for each of 671B and 14B (its model card)
    ],
)
def test_releases_of_the_catalogue_in_their_own_format(alias: str, bytes_total: float, within: float) -> None:
    assert as_stored(alias).weight_bytes == pytest.approx(bytes_total, rel=within, abs=0)
