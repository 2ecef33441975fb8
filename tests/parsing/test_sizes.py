"""Contexts and sizes as people write them."""

from __future__ import annotations

import pytest

from quantlab.errors import QuantlabError
from quantlab.parsing.sizes import named_size, parse_context


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("1", 1),
        ("8192", 8192),
        ("32k", 32_768),
        ("128K", 131_072),
        (" 1M ", 2**20),
        ("1.5k", 1536),
        ("0.5M", 2**19),
        ("1" + "0" * 9, 10**9),
    ],
)
def test_contexts(text: str, tokens: int) -> None:
    assert parse_context(text) == tokens


@pytest.mark.parametrize(
    "text", ["0", "0k", "-1", "10^15", "1e3", "1.5", "0.0001k", "k", "", "32 kib", "٣", "9" * 19, "1025M"]
)
def test_what_is_no_context(text: str) -> None:
    with pytest.raises(QuantlabError, match="cannot be a context"):
        parse_context(text)


@pytest.mark.parametrize(
    ("name", "total", "active"),
    [
        ("qwen3.5-72b", 72 * 10**9, None),
        ("Qwen3.5-397B-A17B", 397 * 10**9, 17 * 10**9),
        ("llama-4-8b", 8 * 10**9, None),
        ("gemma-0.5b-it", 5 * 10**8, None),
        ("giant-1t-a32b", 10**12, 32 * 10**9),
    ],
)
def test_sizes_in_names(name: str, total: int, active: int | None) -> None:
    assert named_size(name) == (total, active)


@pytest.mark.parametrize("name", ["deepseek-v3.5", "mixtral-8x7b", "model-0b", "abacus"])
def test_names_without_a_size(name: str) -> None:
    assert named_size(name) is None
