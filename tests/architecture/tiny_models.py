"""Tiny configs of the architectures that matter, each with every kind of layer that its family has."""

from __future__ import annotations

from typing import Any

_COMMON: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 96,
    "vocab_size": 128,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
_LATENT = {
    "num_key_value_heads": 4,
    "head_dim": 8,
    "kv_lora_rank": 24,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
    "n_routed_experts": 4,
    "n_group": 1,
    "topk_group": 1,
    **_EXPERTS,
}
_DELTA = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 12,
}
_MAMBA = {
    "mamba_n_heads": 8,
    "mamba_d_head": 16,
    "mamba_d_state": 12,
    "mamba_n_groups": 1,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
}
_FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen3": {"head_dim": 24},
    "phi3": {"sliding_window": None},
    "mistral": {"sliding_window": 16},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "gemma2": {"sliding_window": 16},
    "gemma3_text": {"sliding_window": 16, "num_hidden_layers": 7},
    "gemma4_text": {
        "sliding_window": 16,
        "layer_types": ["sliding_attention", "full_attention"] * 3,
        "num_hidden_layers": 6,
        "num_kv_shared_layers": 2,
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": 128,
    },
    "cohere2": {"sliding_window": 16},
    "gpt_oss": {"sliding_window": 16, "num_local_experts": 4, "num_experts_per_tok": 2},
    "llama4_text": {
        "attention_chunk_size": 16,
        "num_local_experts": 4,
        "num_experts_per_tok": 1,
        "intermediate_size_mlp": 96,
    },
    "deepseek_v3": _LATENT,
    "deepseek_v32": {**_LATENT, "index_head_dim": 16, "index_n_heads": 2, "index_topk": 8},
    "deepseek_v4": {
        "num_key_value_heads": 1,
        "q_lora_rank": 16,
        "n_routed_experts": 4,
        "index_head_dim": 8,
        "index_n_heads": 2,
        "index_topk": 4,
        "o_groups": 2,
        "o_lora_rank": 8,
        "sliding_window": 16,
        "num_hidden_layers": 6,
        "compress_ratios": [0, 0, 4, 128, 4, 128, 0],
        "compress_rate_hca": 8,
        **_EXPERTS,
    },
    "qwen3_5_text": _DELTA,
    "qwen3_5_moe_text": {**_DELTA, **_EXPERTS, "num_experts": 4, "shared_expert_intermediate_size": 32},
    "granitemoehybrid": {
        **_MAMBA,
        "layer_types": ["mamba", "attention", "mamba", "attention"],
        "num_local_experts": 0,
    },
    "falcon_h1": {**_MAMBA, "mamba_d_ssm": 128},
    "nemotron_h": {
        "hybrid_override_pattern": "M*-M",
        "mamba_num_heads": 8,
        "mamba_head_dim": 16,
        "ssm_state_size": 12,
        "n_groups": 2,
        "conv_kernel": 4,
    },
    "mamba": {"state_size": 12, "conv_kernel": 4, "expand": 2, "intermediate_size": 128},
    "falcon_mamba": {"state_size": 12, "conv_kernel": 4, "expand": 2, "intermediate_size": 128},
    "mamba2": {
        "num_heads": 8,
        "head_dim": 16,
        "state_size": 12,
        "n_groups": 2,
        "conv_kernel": 4,
        "expand": 2,
    },
    "zamba2": {
        "num_key_value_heads": 4,
        "head_dim": 32,
        "mamba_d_state": 12,
        "mamba_ngroups": 2,
        "mamba_expand": 2,
        "n_mamba_heads": 8,
        "mamba_headdim": 16,
        "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"],
        "num_mem_blocks": 1,
    },
    "jamba": {
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "mamba_expand": 2,
        "mamba_d_state": 12,
        "mamba_d_conv": 4,
        "num_experts": 2,
        "num_experts_per_tok": 1,
    },
    "kimi_linear": {
        **_LATENT,
        "num_experts": 4,
        "linear_attn_config": {
            "num_heads": 4,
            "head_dim": 12,
            "short_conv_kernel_size": 4,
            "kda_layers": [1, 2, 4],
            "full_attn_layers": [3],
        },
    },
    "minimax": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "cwm": {"sliding_window": 16},
    "modernbert-decoder": {"local_attention": 32, "num_key_value_heads": 4},
    "olmo_hybrid": {},
    "lfm3": {"sliding_window": 16, "num_hidden_layers": 6},
    "lfm2": {"layer_types": ["conv", "conv", "full_attention", "conv"]},
}
FAMILIES = tuple(_FAMILIES)


def tiny(family: str) -> dict[str, Any]:
    """Fields for the family's config class."""
    return {"model_type": family, **_COMMON, **_FAMILIES[family]}
