"""The ceiling and the cache's formula against figures worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from quantlab.architecture.cache_formula import cache_formula
from quantlab.architecture.roofline import WeightReads, measured_roofline, tokens_per_second, touched_share

LLAMA3_8B: dict[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_size": 4096,
    "vocab_size": 128256,
}
HYBRID = LLAMA3_8B | {
    "model_type": "qwen3_next",
    "head_dim": 128,
    "layer_types": [*["linear_attention"] * 24, *["full_attention"] * 8],
    "linear_num_value_heads": 32,
    "linear_num_key_heads": 16,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_conv_kernel_dim": 4,
}
PER_TOKEN = 2 * 8 * 128 * 2
"""Bytes of keys and values of one layer: 2 × 8 heads × 128 wide × 2 bytes."""
STATE = 24 * (32 * 128 * 128 * 4 + 3 * (2 * 16 * 128 + 32 * 128) * 2)
"""Of HYBRID's 24 linear layers: a float32 matrix per head, and 3 columns of its convolution's channels in 16
bits."""


def held(config: dict[str, Any], tokens: int, batch: int, cache: str) -> int | None:
    formula = cache_formula(config, cache)
    return formula.keys_and_values(tokens, batch) if formula else None


def test_a_cache_of_llama_3_8b_is_128_kib_per_token() -> None:
    # 2 × 32 layers × 8 heads × 128 wide × 2 bytes
    assert held(LLAMA3_8B, 1, 1, "float16") == 128 * 2**10
    assert held(LLAMA3_8B, 8192, 2, "bfloat16") == 2 * 2**30
    assert held({"text_config": LLAMA3_8B}, 1, 1, "f32") == 256 * 2**10


def test_blocks_of_32_values_carry_their_scales() -> None:
    # a block of q8_0 has 34 bytes, of q4_0 18 (ggml-common.h)
    assert held(LLAMA3_8B, 32, 1, "q8_0") == 2 * 32 * 8 * 128 * 34
    assert held(LLAMA3_8B, 32, 1, "q4_0") == 2 * 32 * 8 * 128 * 18
    assert held(LLAMA3_8B, 32, 1, "iq4_nl") == 2 * 32 * 8 * 128 * 18


@pytest.mark.parametrize(
    ("config", "layers_times_tokens"),
    [
        (HYBRID, 8 * 1000),
        (LLAMA3_8B | {"model_type": "mistral", "sliding_window": 512}, 32 * 512),
        (LLAMA3_8B | {"model_type": "qwen2", "sliding_window": 512, "use_sliding_window": False}, 32 * 1000),
    ],
)
def test_a_hybrid_and_a_window_have_a_figure_by_layer(
    config: dict[str, Any], layers_times_tokens: int
) -> None:
    assert held(config, 1000, 3, "float16") == 3 * layers_times_tokens * PER_TOKEN


def test_latent_attention_has_a_figure() -> None:
    config = LLAMA3_8B | {"model_type": "deepseek_v3", "kv_lora_rank": 512, "qk_rope_head_dim": 64}
    assert held(config, 1000, 1, "bfloat16") == 32 * 1000 * (512 + 64) * 2


def test_a_hybrids_step_reads_its_state_and_the_keys_and_values_so_far() -> None:
    formula = cache_formula(HYBRID, "bfloat16")
    assert formula is not None
    assert formula.read_per_step(100, 8, 1) == STATE + 8 * 104 * PER_TOKEN
    assert formula.read_per_step(100, 8, 5) == 5 * formula.read_per_step(100, 8, 1)
    assert formula.read_per_step(100, 8, 1, gpus=2) == formula.read_per_step(100, 8, 1)
    # an odd number of tokens: between two of them
    assert formula.read_per_step(100, 7, 1) == STATE + 8 * PER_TOKEN * 103.5


@pytest.mark.parametrize(
    "odd",
    [
        {"num_hidden_layers": None},
        {"model_type": "of_its_own", "mamba_d_state": 16},
        {"model_type": "of_its_own"},
        {"layer_types": ["some_attention"] * 32},
        {"num_key_value_heads": 5},
    ],
)
def test_what_is_not_known_so_well_has_no_figure(odd: dict[str, object]) -> None:
    assert held(LLAMA3_8B | odd, 1, 1, "float16") is None


@pytest.mark.parametrize("cache", ["hqq4", "quanto2", "float17", ""])
def test_a_cache_that_keeps_some_tokens_in_full_has_no_figure(cache: str) -> None:
    assert held(LLAMA3_8B, 1, 1, cache) is None


def test_a_window_that_is_not_used_changes_nothing() -> None:
    unused = LLAMA3_8B | {"model_type": "qwen2", "sliding_window": 32768, "use_sliding_window": False}
    assert held(unused, 9, 1, "float16") == held(LLAMA3_8B, 9, 1, "float16") is not None


def test_experts_are_read_as_far_as_a_batch_touches_them() -> None:
    dense, mixture = WeightReads(1000), WeightReads(1000, 8000, 8, 2)
    assert dense.per_step(1) == dense.per_step(64) == 1000
    assert mixture.per_step(1) == 1000 + 8000 * 2 // 8
    assert mixture.per_step(2) == 1000 + 8000 * (1 - 0.75**2)
    assert (
        WeightReads(1000, 8000).per_step(1) is None and WeightReads(1000, 8000, 8).per_step(1) is None
    )  # not 1000
    assert touched_share(8, 2, 1) == 0.25
    assert mixture.per_step(1) < mixture.per_step(4) < mixture.per_step(1000) == 9000


def test_the_ceiling_is_bandwidth_over_bytes() -> None:
    found = measured_roofline(4, 900, 100, 1e6, 2000.0)
    assert found.tokens_per_second == 4000 and found.share == 0.5
    assert measured_roofline(1, 900, 100, 1e6, None).share is None


def test_arithmetic_that_takes_longer_sets_the_ceiling() -> None:
    assert tokens_per_second(4, 1000, 1e6, arithmetic_seconds=0.002) == 2000
    assert tokens_per_second(4, 1000, 1e6, arithmetic_seconds=0.0005) == 4000
    assert tokens_per_second(4, 0, 1e6) == 0
