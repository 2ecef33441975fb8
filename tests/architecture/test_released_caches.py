"""Caches and counts of releases whose layers differ, at 8,192 tokens in bfloat16."""

from __future__ import annotations

from typing import Any

import pytest

from quantlab.architecture import _meta_count, counts
from quantlab.architecture.counts import count
from quantlab.architecture.estimate import estimate
from quantlab.architecture.kvcache import cache_bytes
from quantlab.architecture.parameters import ParameterCount
from quantlab.architecture.shape import read_architecture

MIB = 2**20

CODESTRAL: dict[str, Any] = {
    "model_type": "mamba2",
    "conv_kernel": 4,
    "expand": 2,
    "head_dim": 64,
    "hidden_size": 4096,
    "intermediate_size": 8192,
    "n_groups": 8,
    "num_heads": 128,
    "num_hidden_layers": 64,
    "state_size": 128,
    "tie_word_embeddings": False,
    "vocab_size": 32768,
}
SHARED_AT = (6, 11, 17, 23, 29, 35, 41, 47, 53, 59, 65, 71, 77)
ZAMBA2: dict[str, Any] = {
    "model_type": "zamba2",
    "conv_dimension": 4,
    "expansion_factor": 2,
    "ffn_hidden_size": 14336,
    "hidden_size": 3584,
    "kv_channels": 112,
    "layers_block_type": ["hybrid" if i in SHARED_AT else "mamba" for i in range(81)],
    "mamba_headdim": 64,
    "mamba_ngroups": 2,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "num_hidden_layers": 81,
    "num_mem_blocks": 2,
    "sliding_window": None,
    "state_size": 64,
    "vocab_size": 32000,
}
STEP: dict[str, Any] = {
    "model_type": "step3p5",
    "hidden_size": 4096,
    "intermediate_size": 11264,
    "num_attention_heads": 64,
    "num_attention_groups": 8,
    "head_dim": 128,
    "num_hidden_layers": 45,
    "vocab_size": 128896,
    "moe_num_experts": 288,
    "moe_top_k": 8,
    "moe_intermediate_size": 1280,
    "share_expert_dim": 1280,
    "moe_layers_enum": ",".join(map(str, range(3, 45))),
    "sliding_window": 512,
    "num_nextn_predict_layers": 3,
    "attention_other_setting": {
        "attention_type": "sliding_attention",
        "num_attention_heads": 96,
        "num_attention_groups": 8,
        "head_dim": 128,
    },
    "layer_types": [("sliding" if i % 4 else "full") + "_attention" for i in range(48)],
    "tie_word_embeddings": False,
}
GLM5: dict[str, Any] = {
    "model_type": "glm_moe_dsa",
    "hidden_size": 6144,
    "num_attention_heads": 64,
    "num_key_value_heads": 64,
    "num_hidden_layers": 78,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "index_head_dim": 128,
    "index_topk": 2048,
    "index_topk_freq": 4,
    "index_skip_topk_offset": 3,
    "layer_types": ["deepseek_sparse_attention"] * 78,
    "vocab_size": 154880,
}
RUNS: tuple[tuple[int | None, float, int], ...] = (
    *((8, 2.625, 1), (8, 5.25, 5), (None, 2.625, 2), (8, 5.25, 3), (None, 3.28125, 1), (8, 5.25, 30)),
    *((None, 1.3125, 1), (None, 2.625, 2), (None, 1.3125, 1), (None, 5.25, 1), (None, 1.3125, 1)),
    *((None, 2.625, 1), (None, 1.3125, 3), (8, 5.25, 1), (None, 1.3125, 1), (None, 1.0, 2)),
    *((None, 1.3125, 1), (None, 1.0, 3), (None, 1.3125, 2), (None, 0.5, 2), (None, 1.0, 2)),
    *((None, 0.5, 2), (None, 1.0, 1), (None, 0.5, 2), (8, 5.25, 9)),
)
"""Of Llama 3.3 Nemotron Super 49B: heads of a group (None: no attention), the feed-forward's factor, layers."""
NEMOTRON: dict[str, Any] = {
    "model_type": "nemotron-nas",
    "hidden_size": 8192,
    "num_attention_heads": 64,
    "num_key_value_heads": None,
    "intermediate_size": None,
    "num_hidden_layers": 80,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
    "block_configs": [
        {
            "attention": {"n_heads_in_group": group, "no_op": group is None, "replace_with_linear": False},
            "ffn": {"ffn_mult": factor, "no_op": False, "replace_with_linear": False},
        }
        for group, factor, many in RUNS
        for _ in range(many)
    ],
}
DBRX: dict[str, Any] = {
    "model_type": "dbrx",
    "d_model": 6144,
    "n_heads": 48,
    "n_layers": 40,
    "vocab_size": 100352,
    "attn_config": {"kv_n_heads": 8},
    "ffn_config": {"ffn_hidden_size": 10752, "moe_num_experts": 16, "moe_top_k": 4},
}


@pytest.mark.parametrize(
    ("config", "mib", "state_mib"),
    [
        (CODESTRAL, 0, 64 * (128 * 64 * 128 * 4 + (8192 + 2 * 8 * 128) * 3 * 2) / MIB),
        (ZAMBA2, 2912, 81 * (112 * 64 * 64 * 4 + (7168 + 2 * 2 * 64) * 3 * 2) / MIB),
        (STEP, 450, 0),
        (GLM5, 744, 0),
        (NEMOTRON, 1568, 0),
        (DBRX, 1280, 0),
    ],
    ids=["codestral", "zamba2", "step", "glm", "nemotron", "dbrx"],
)
def test_a_cache_is_summed_layer_by_layer(config: dict[str, Any], mib: float, state_mib: float) -> None:
    held = cache_bytes(read_architecture(config), 8192)
    assert (held.total - held.state) / MIB == mib
    assert held.state / MIB == pytest.approx(state_mib, abs=1e-9)


def test_a_state_does_not_grow() -> None:
    shape = read_architecture(CODESTRAL)
    assert cache_bytes(shape, 1).total == cache_bytes(shape, 1_000_000).total
    assert 259 < cache_bytes(shape, 8192).total / MIB < 261
    assert 145 < cache_bytes(read_architecture(ZAMBA2), 8192).state / MIB < 146


def test_an_indexers_keys_lie_in_the_layers_that_have_one() -> None:
    shape = read_architecture(GLM5)
    held = [layer for layer in shape.layers if layer.index_dim]
    assert len(held) == 21 and sum(layer.index_dim for layer in held) * 131072 * 2 / MIB == 672
    named = ["full", "full", "full", *(["shared"] * 3 + ["full"]) * 18, *["shared"] * 3]
    assert read_architecture(GLM5 | {"indexer_types": named}).layers == shape.layers


@pytest.mark.parametrize(
    ("config", "state"),
    [
        (
            {"model_type": "mamba", "hidden_size": 64, "state_size": 16, "expand": 2},
            128 * 16 * 4 + 128 * 3 * 2,
        ),
        (
            {"model_type": "falcon_mamba", "hidden_size": 64, "state_size": 16, "intermediate_size": 160},
            160 * 16 * 4 + 160 * 3 * 2,
        ),
        ({"model_type": "rwkv", "hidden_size": 64}, 3 * 64 * 4 + 2 * 64 * 2),
        ({"model_type": "xlstm", "hidden_size": 64, "num_heads": 4}, 4 * (8 * 16 + 8 + 1) * 4),
    ],
)
def test_models_without_attention_keep_a_state_alone(config: dict[str, Any], state: int) -> None:
    shape = read_architecture(config | {"num_hidden_layers": 3, "vocab_size": 100})
    held = cache_bytes(shape, 4096)
    assert held.total == held.state == 3 * state and shape.attention_heads == 0


def test_widths_of_each_layer_are_counted() -> None:
    found = count(NEMOTRON)
    assert found.certain and found.total == 49_867_145_216
    assert sum(len(matrix.layers) for matrix in found.tensors if matrix.name.endswith("q_proj")) == 49


def built(config: dict[str, Any]) -> ParameterCount:
    return ParameterCount.model_validate(_meta_count.answer(config)["count"])


def test_experts_per_token_may_be_a_list() -> None:
    """Hunyuan-A13B in 2 of its 32 layers."""
    found = built(
        {
            "model_type": "hunyuan_v1_moe",
            "hidden_size": 4096,
            "num_hidden_layers": 2,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "intermediate_size": 3072,
            "moe_intermediate_size": [3072] * 2,
            "num_experts": 64,
            "num_shared_expert": [1] * 2,
            "moe_topk": [8] * 2,
            "vocab_size": 1000,
            "tie_word_embeddings": True,
        }
    )
    experts = 2 * 64 * 3 * 4096 * 3072
    assert found.experts_per_token == 8 and found.active == found.total - experts + experts // 8


def test_experts_that_do_nothing_have_no_parameters() -> None:
    """LongCat-Flash in 1 of its 28 layers: 256 of 768 experts pass a token on."""
    found = built(
        {
            "model_type": "longcat_flash",
            "hidden_size": 6144,
            "num_layers": 1,
            "num_attention_heads": 64,
            "ffn_hidden_size": 12288,
            "expert_ffn_hidden_size": 2048,
            "n_routed_experts": 512,
            "zero_expert_num": 256,
            "moe_topk": 12,
            "kv_lora_rank": 512,
            "q_lora_rank": 1536,
            "vocab_size": 1000,
        }
    )
    assert found.by_role["expert"] == 512 * 3 * 6144 * 2048 and found.experts == 512
    assert found.certain


def test_layers_that_no_file_holds_are_not_announced() -> None:
    """MiniMax-M2.5 names 3 layers for multi-token prediction."""
    found = built(
        {
            "model_type": "minimax_m2",
            "hidden_size": 64,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "num_mtp_modules": 3,
            "vocab_size": 100,
        }
    )
    assert "mtp" not in found.by_role
    assert any("the releases' files have none" in doubt for doubt in found.doubts)


def test_what_quantlab_cannot_count_is_not_blamed_on_transformers(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANTLAB_CACHE", str(tmp_path))
    failing = "raise RuntimeError('layers differ')"
    monkeypatch.setattr(counts, "COMMAND", ("-c", failing))
    found = count({"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 100})
    assert not found.certain
    assert any(
        "quantlab's own counting of this architecture failed (RuntimeError: layers differ)" in doubt
        for doubt in found.doubts
    )
    assert not any("transformers" in doubt for doubt in found.doubts)


def test_step_is_estimated_near_its_size() -> None:
    """196B, of which 11B are used."""
    found = estimate(STEP, "transformers has no architecture 'step3p5'")
    assert found.total == pytest.approx(196e9, rel=0.02) and found.active == pytest.approx(11e9, rel=0.1)
