"""Cache bytes: worked examples, relations, and what engines do otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from quantlab.architecture.cache_types import BYTES_PER_VALUE
from quantlab.architecture.kvcache import POLICIES, cache_bytes, cache_bytes_per_gpu, cache_bytes_read
from quantlab.architecture.shape import Architecture, read_architecture
from quantlab.catalogue.config import known_config
from quantlab.errors import QuantlabError

FACTS = Path(__file__).parents[3] / "shared" / "facts" / "models.json"
SIZES = {"K": 1024, "M": 1024**2}
MODELS = (
    "llama-3.1-8b",
    "qwen3.5-27b",
    "deepseek-v3",
    "deepseek-v3.2",
    "deepseek-v4-flash",
    "llama-4-scout",
    "gemma-3-4b",
    "gpt-oss-20b",
)


def architecture(alias: str) -> Architecture:
    found = known_config(alias)
    assert found is not None
    return read_architecture(found.config)


@pytest.mark.shared
@pytest.mark.skipif(not FACTS.is_file(), reason="../shared is not there")
def test_worked_examples() -> None:
    checked = 0
    for model in json.loads(FACTS.read_text(encoding="utf-8"))["models"]:
        for size, expected in model.get("worked_example", {}).get("kv", {}).get("kv_bytes_bf16", {}).items():
            tokens = int(size[:-1]) * SIZES[size[-1]]
            assert cache_bytes(read_architecture(model["config"]), tokens).total == expected, (
                model["id"],
                size,
            )
            checked += 1
    assert checked >= 30


@pytest.mark.parametrize(
    ("alias", "tokens", "expected"),
    [
        ("llama-3.1-8b", 8192, 1_073_741_824),  # 2 · 8 heads · 128 · 32 layers · 2 bytes
        ("deepseek-v3", 8192, 575_668_224),  # (512 + 64) · 61 layers · 2 bytes
        ("deepseek-v3.2", 8192, 703_594_496),  # the same with the indexer's 128
        ("smollm2", 144, 3_317_760),  # as measured in the example report
    ],
)
def test_known_answers(alias: str, tokens: int, expected: int) -> None:
    assert cache_bytes(architecture(alias), tokens).total == expected


@pytest.mark.parametrize("alias", MODELS)
@pytest.mark.parametrize("policy", POLICIES)
def test_more_tokens_never_need_less_at_full_windows(alias: str, policy: str) -> None:
    found = architecture(alias)
    sizes = [cache_bytes(found, tokens, policy=policy).total for tokens in (128, 1024, 8192, 2**17, 2**20)]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize("alias", MODELS)
def test_relations_between_policies_and_dtypes(alias: str) -> None:
    found = architecture(alias)
    exact = cache_bytes(found, 100_000)
    assert exact.total == sum(exact.by_kind.values()) >= exact.state
    assert cache_bytes(found, 100_000, policy="every_layer_full").total >= exact.total
    assert cache_bytes(found, 100_000, "fp8").total < cache_bytes(found, 100_000, "q8_0").total < exact.total
    assert cache_bytes(found, 100_000, "float32").total > exact.total
    assert cache_bytes_read(found, 100_000) <= exact.total


def test_a_state_does_not_grow() -> None:
    found = architecture("qwen3.5-27b")
    short, long = cache_bytes(found, 10), cache_bytes(found, 10**6)
    assert short.state == long.state == 153_944_064
    assert long.by_kind["delta_net"] == short.by_kind["delta_net"]


def test_gigantic_contexts_are_exact() -> None:
    assert cache_bytes(architecture("llama-3.1-8b"), 10**15).total == 131_072 * 10**15


@pytest.mark.parametrize(
    ("alias", "replicated"), [("llama-3.1-8b", False), ("deepseek-v3", True), ("deepseek-v4-flash", True)]
)
def test_heads_are_split_over_gpus_and_latents_are_not(alias: str, replicated: bool) -> None:
    found = architecture(alias)
    one, eight = cache_bytes_per_gpu(found, 8192, 1).total, cache_bytes_per_gpu(found, 8192, 8).total
    assert eight == (one if replicated else one // 8)


def test_a_head_is_on_every_gpu_where_gpus_outnumber_heads() -> None:
    found = architecture("llama-3.1-8b")
    assert cache_bytes_per_gpu(found, 8192, 32).total == cache_bytes_per_gpu(found, 8192, 8).total


def test_llama_cpp_holds_steps_of_256_tokens() -> None:
    found = architecture("smollm2")
    assert cache_bytes(found, 144, "float16", "llama_cpp").total == cache_bytes(found, 256, "float16").total


def test_an_indexer_bounds_what_is_read() -> None:
    found = architecture("deepseek-v3.2")
    assert cache_bytes_read(found, 1000) == cache_bytes(found, 1000).total
    assert cache_bytes_read(found, 100_000) < cache_bytes(found, 100_000).total / 4


@pytest.mark.parametrize("arguments", [(0,), (-1,), (10, "float17"), (10, "bfloat16", "hopeful")])
def test_nonsense_is_refused(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(QuantlabError):
        cache_bytes(architecture("smollm2"), *arguments)


def test_names_of_dtypes() -> None:
    found = architecture("smollm2")
    assert cache_bytes(found, 10, "BF16").total == cache_bytes(found, 10, "bfloat16").total
    assert all(size > 0 for size in BYTES_PER_VALUE.values())
