"""The computed cache equals the cache tensors that transformers really holds, byte for byte."""

from __future__ import annotations

import functools
import json
from typing import Any

import pytest
from tiny_models import FAMILIES, tiny

from quantlab.architecture.kvcache import cache_bytes
from quantlab.architecture.shape import read_architecture

LENGTHS = (7, 16, 41)
"""Shorter than, equal to and longer than the windows."""
_COUNTERS = ("_sliding_window_tensor", "cumulative_length")


@functools.cache
def _model(family: str, dtype: str) -> Any:
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    fields = {key: value for key, value in tiny(family).items() if key != "model_type"}
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(
        CONFIG_MAPPING[family](**fields), dtype=getattr(torch, dtype)
    ).eval()


def _real_bytes(model: Any, tokens: int) -> int:
    """Prefill all but one token and decode that one: sliding layers shrink to their window in the first
    step."""
    import torch

    ids = torch.arange(3, 3 + tokens).unsqueeze(0)
    with torch.no_grad():
        first = model(input_ids=ids[:, :-1], use_cache=True)
        name = "past_key_values" if hasattr(first, "past_key_values") else "cache_params"
        cache = getattr(first, name)
        cache = getattr(model(input_ids=ids[:, -1:], use_cache=True, **{name: cache}), name)
    held: dict[tuple[int, Any], int] = {}
    for tensor in getattr(cache, "linear_cache", ()):  # MiniMax keeps its states beside the layers
        if isinstance(tensor, torch.Tensor):
            held[tensor.data_ptr(), tensor.shape] = tensor.numel() * tensor.element_size()
    for layer in cache.layers:
        for name, value in vars(layer).items():
            for tensor in value.values() if isinstance(value, dict) else [value]:
                if isinstance(tensor, torch.Tensor) and tensor.numel() and name not in _COUNTERS:
                    held[tensor.data_ptr(), tensor.shape] = tensor.numel() * tensor.element_size()
    return sum(held.values())


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_cache_equals_the_tensors_of_transformers(family: str) -> None:
    as_written = read_architecture(tiny(family))
    for dtype in ("bfloat16", "float32"):
        model = _model(family, dtype)
        saved = read_architecture(json.loads(json.dumps(model.config.to_dict(), default=str)))
        for tokens in LENGTHS:
            real = _real_bytes(model, tokens)
            assert real > 0
            assert cache_bytes(as_written, tokens, dtype, "transformers").total == real, (
                dtype,
                tokens,
                "config as written",
            )
            assert cache_bytes(saved, tokens, dtype, "transformers").total == real, (
                dtype,
                tokens,
                "config as saved",
            )


@pytest.mark.slow
def test_families_cover_every_kind_of_layer() -> None:
    kinds = {kind for family in FAMILIES for kind in read_architecture(tiny(family)).kinds}
    assert kinds >= {
        "full",
        "sliding",
        "chunked",
        "mla",
        "mla_indexed",
        "delta_net",
        "compressed_sparse",
        "heavily_compressed",
        "conv",
    }
    assert kinds >= {"mamba", "hybrid"}
