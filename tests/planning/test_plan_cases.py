"""Releases on which a plan was wrong once, with the right values."""

from __future__ import annotations

from typing import Any

import pytest

from quantlab.architecture import _meta_count, counts
from quantlab.catalogue.config import known_config
from quantlab.catalogue.gpu import parse_gpus
from quantlab.planning.fit import plan_model
from quantlab.planning.plan import ModelPlan, VariantPlan

FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128], "modules_to_not_convert": ["lm_head"]}
QWEN3_30B: dict[str, Any] = {
    "model_type": "qwen3_moe",
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "moe_intermediate_size": 768,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 48,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "vocab_size": 151936,
    "tie_word_embeddings": False,
    "quantization_config": FP8,
}
QWEN3_235B = QWEN3_30B | {
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "moe_intermediate_size": 1536,
    "num_attention_heads": 64,
    "num_hidden_layers": 94,
}
QWEN2_5_72B: dict[str, Any] = {
    "model_type": "qwen2",
    "hidden_size": 8192,
    "intermediate_size": 29568,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 152064,
    "tie_word_embeddings": False,
}


def config(alias: str) -> dict[str, Any]:
    known = known_config(alias)
    assert known is not None
    return dict(known.config)


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Build architectures without a process of their own."""
    monkeypatch.setattr(counts, "_ask", _meta_count.answer)
    monkeypatch.setenv("QUANTLAB_CACHE", str(tmp_path))


def reasons(plan: ModelPlan) -> dict[tuple[str, int], str | None]:
    return {(v.slug, rig.gpus): rig.not_parallel for v in plan.variants for rig in v.rigs}


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(
    ("release", "parallel", "not_parallel", "said"),
    [
        (QWEN3_235B | {"num_hidden_layers": 2}, 4, 8, "1,536 / 8 = 192 cannot be divided by the 128"),
        (QWEN3_30B | {"num_hidden_layers": 2}, 2, 4, "768 / 4 = 192 cannot be divided by the 128"),
    ],
)
def test_gpus_share_whole_blocks_of_fp8(
    release: dict[str, Any], parallel: int, not_parallel: int, said: str
) -> None:
    rigs = [parse_gpus(f"h100:{n}") for n in (parallel, not_parallel)]
    first = plan_model(release, name="m", rigs=rigs).variants[0]
    assert first.stored and first.rigs[0].not_parallel is None
    assert said in (first.rigs[1].not_parallel or "")
    assert any("holds whole layers" in note or "layers" in note for note in first.rigs[1].notes)


@pytest.mark.usefixtures("in_this_process")
def test_gpus_share_whole_groups() -> None:
    rigs = [parse_gpus(f"h100:{n}") for n in (2, 4, 8)]
    small = QWEN2_5_72B | {"num_hidden_layers": 2}
    found = reasons(plan_model(small, name="m", rigs=rigs, methods=["gptq-4", "awq-4", "fp8-8", "gguf-4"]))
    for size, share in ((2, "14,784"), (4, "7,392"), (8, "3,696")):
        for slug in ("gptq-4", "awq-4"):
            assert f"29,568 / {size} = {share} cannot be divided by the 128" in (found[slug, size] or "")
        assert found["fp8-8", size] is None and found["gguf-4", size] is None


@pytest.mark.usefixtures("in_this_process")
def test_a_group_that_divides_lets_the_gpus_share() -> None:
    small = QWEN2_5_72B | {"num_hidden_layers": 2}
    plan = plan_model(
        small,
        name="m",
        rigs=[parse_gpus("h100:2")],
        methods=["gptq-4"],
        settings={"gptq-4": {"group_size": 64}},
    )
    assert reasons(plan) == {("gptq-4", 2): None}


def test_experts_narrower_than_a_group_on_each_gpu() -> None:
    rigs = [parse_gpus(f"h100:{n}") for n in (4, 8)]
    found = reasons(plan_model(config("qwen3.5-35b-a3b"), name="m", rigs=rigs, methods=["gptq-4"]))
    assert found["gptq-4", 4] is None
    assert "512 / 8 = 64 cannot be divided by the 128" in (found["gptq-4", 8] or "")


def test_the_smallest_sets_are_those_that_share_the_layers() -> None:
    plan = plan_model(config("qwen3.5-397b-a17b"), name="m", methods=["gptq-4"])
    assert all(rig.not_parallel is None for rig in plan.variants[0].rigs)


def as_stored(release: dict[str, Any]) -> VariantPlan:
    first = plan_model(release, name="m", place_gpus=False).variants[0]
    assert first.stored and first.weight_bytes
    return first


def test_a_format_for_each_layer() -> None:
    """Qwen3.6-35B-A3B-NVFP4, without its vision tower: 23.4 GB with it."""
    nvfp4, fp8 = {"quant_algo": "W4A16_NVFP4", "group_size": 16}, {"quant_algo": "FP8"}
    layers: dict[str, dict[str, Any]] = {"lm_head": nvfp4}
    for i in range(40):
        block = f"model.language_model.layers.{i}"
        layers[f"{block}.mlp.experts"] = nvfp4
        layers |= {f"{block}.mlp.shared_expert.{name}_proj": nvfp4 for name in ("gate", "up", "down")}
        names = [f"self_attn.{name}_proj" for name in "qkvo"]
        if (i + 1) % 4:
            names = [f"linear_attn.{name}" for name in ("in_proj_qkv", "in_proj_z", "out_proj")]
        layers |= {f"{block}.{name}": fp8 for name in names}
    about = {
        "quant_method": "modelopt",
        "quant_algo": "MIXED_PRECISION",
        "quantized_layers": layers,
        "ignore": ["mtp.layers.0*", "mtp*"],
    }
    found = as_stored(config("qwen3.5-35b-a3b") | {"quantization_config": about})
    packed4 = 40 * (256 + 1) * 3 * 2048 * 512 + 248320 * 2048
    packed8 = 30 * 2048 * (8192 + 4096 + 4096) + 10 * 2048 * (8192 + 2 * 512 + 4096)
    prediction = counts.count(config("qwen3.5-35b-a3b")).by_role["mtp"]
    plain = 34_660_610_688 - packed4 - packed8 + prediction
    assert found.weight_bytes == packed4 * 9 // 16 + packed8 + 2 * plain
    tower = 446_571_248
    assert ((found.weight_bytes or 0) + 2 * tower) / 1e9 == pytest.approx(23.4, abs=0.05)
    assert any("multi-token prediction are in it" in note for note in found.notes)


def test_a_releases_own_groups_come_before_its_experts_dtype() -> None:
    """DeepSeek-V4-Pro-NVFP4: 913.09 GB of files, with the layer for multi-token prediction."""
    listed = {f"layers.{i}.ffn.experts": {"group_size": 16, "quant_algo": "NVFP4"} for i in range(61)}
    about = {
        "quant_method": "fp8",
        "quant_algo": "MIXED_PRECISION",
        "weight_block_size": [128, 128],
        "scale_fmt": "ue8m0",
        "quantized_layers": listed,
        "ignore": ["*.attn.*", "*.ffn.shared_experts.*", "head", "mtp.*"],
    }
    release = config("deepseek-v4-pro") | {"quantization_config": about, "expert_dtype": "fp4"}
    found = as_stored(release)
    assert found.weight_bytes == pytest.approx(913.09e9, rel=1e-4)
    assert found.weight_bytes < 913.09e9


GEMMA4: dict[str, Any] = {
    "model_type": "gemma4_text",
    "hidden_size": 2816,
    "intermediate_size": 2112,
    "moe_intermediate_size": 704,
    "num_experts": 128,
    "top_k_experts": 8,
    "enable_moe_block": True,
    "num_hidden_layers": 30,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "num_global_key_value_heads": 2,
    "head_dim": 256,
    "global_head_dim": 512,
    "attention_k_eq_v": True,
    "hidden_size_per_layer_input": 0,
    "vocab_size_per_layer_input": 262144,
    "num_kv_shared_layers": 0,
    "sliding_window": 1024,
    "layer_types": [("sliding" if (i + 1) % 6 else "full") + "_attention" for i in range(30)],
    "vocab_size": 262144,
    "tie_word_embeddings": True,
}


@pytest.mark.usefixtures("in_this_process")
def test_a_model_whose_heads_differ_by_layer_is_counted() -> None:
    """Gemma 4 26B-A4B, without its vision tower of 572,792,112: 25.8B with it."""
    kept = [
        f"model.language_model.layers.{i}.{n}*" for i in range(30) for n in ("mlp", "router", "self_attn")
    ]
    nvfp4 = {
        "group_0": {"weights": {"num_bits": 4, "type": "float", "group_size": 16}, "targets": ["Linear"]}
    }
    about = {"quant_method": "modelopt", "config_groups": nvfp4, "ignore": ["lm_head", *kept]}
    plan = plan_model(GEMMA4 | {"quantization_config": about}, name="m", place_gpus=False)
    experts = 30 * 128 * 3 * 2816 * 704
    assert plan.certain and plan.total_parameters == 25_805_933_872 - 572_792_112
    assert plan.active_parameters == plan.total_parameters - experts + experts * 8 // 128
    assert plan.cache_bytes_per_sequence == 25 * 2 * 8 * 256 * 1024 * 2 + 5 * 2 * 2 * 512 * 8192 * 2
    assert plan.variants[0].weight_bytes == pytest.approx(
        experts * 4.5 / 8 + 2 * (plan.total_parameters - experts), rel=1e-6
    )
