"""The ceiling and the cache's size against figures worked out by hand."""

from __future__ import annotations

import pytest

from quantlab.architecture.reads import WeightReads, ceiling, kv_cache_bytes

LLAMA3_8B = {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096}


def test_a_cache_of_llama_3_8b_is_128_kib_per_token() -> None:
    # 2 × 32 layers × 8 heads × 128 wide × 2 bytes
    assert kv_cache_bytes(LLAMA3_8B, 1, 1, "float16") == 128 * 2**10
    assert kv_cache_bytes(LLAMA3_8B, 8192, 2, "bfloat16") == 2 * 2**30
    assert kv_cache_bytes({"text_config": LLAMA3_8B}, 1, 1, "f32") == 256 * 2**10


def test_blocks_of_32_values_carry_their_scales() -> None:
    # a block of q8_0 has 34 bytes, of q4_0 18 (ggml-common.h)
    assert kv_cache_bytes(LLAMA3_8B, 32, 1, "q8_0") == 2 * 32 * 8 * 128 * 34
    assert kv_cache_bytes(LLAMA3_8B, 32, 1, "q4_0") == 2 * 32 * 8 * 128 * 18


@pytest.mark.parametrize(
    "odd",
    [
        {"layer_types": ["linear_attention", "full_attention"]},
        {"sliding_window": 512},
        {"sliding_window": 512, "use_sliding_window": True},
        {"kv_lora_rank": 512},
        {"num_hidden_layers": None},
        {"mamba_d_state": 16, "attn_layer_period": 8},
        {"linear_num_key_heads": 16},
        {"hybrid_override_pattern": "M-M*"},
    ],
)
def test_what_the_formula_does_not_describe_has_no_figure(odd: dict[str, object]) -> None:
    assert kv_cache_bytes(LLAMA3_8B | odd, 1, 1, "float16") is None
    assert kv_cache_bytes(LLAMA3_8B, 1, 1, "hqq4") is None


def test_a_window_that_is_not_used_changes_nothing() -> None:
    unused = LLAMA3_8B | {"sliding_window": 32768, "use_sliding_window": False}
    assert kv_cache_bytes(unused, 9, 1, "float16") == kv_cache_bytes(LLAMA3_8B, 9, 1, "float16") is not None


def test_experts_are_read_as_far_as_a_batch_touches_them() -> None:
    dense, mixture = WeightReads(1000), WeightReads(1000, 8000, 8, 2)
    assert dense.per_step(1) == dense.per_step(64) == 1000
    assert mixture.per_step(1) == 1000 + 8000 * 2 // 8
    assert mixture.per_step(2) == 1000 + 8000 * (1 - 0.75**2)
    assert WeightReads(1000, 8000).per_step(1) is None and WeightReads(1000, 8000, 8).per_step(1) is None  # not 1000
    assert mixture.per_step(1) < mixture.per_step(4) < mixture.per_step(1000) == 9000


def test_the_ceiling_is_bandwidth_over_bytes() -> None:
    found = ceiling(4, 900, 100, 1e6, 2000.0)
    assert found.tokens_per_second == 4000 and found.share == 0.5
    assert ceiling(1, 900, 100, 1e6, None).share is None
