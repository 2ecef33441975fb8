"""Name the pre-tokenizer of a tokenizer.json by its rules, for vocabularies that llama.cpp does not know.

llama.cpp's converter knows a pre-tokenizer by a hash of the token ids of one text, so by the vocabulary:
every tokenizer that somebody trained or cut is unknown to it. The names here stand for rules that are the
same in llama.cpp (llama-vocab.cpp); whoever uses one compares the token ids afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_MARKED = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPLITS = {
    rf"{_WORDS}\p{{N}}{{1,3}}{_REST}": "llama-bpe",
    rf"{_WORDS}\p{{N}}{_REST}": "qwen2",
    _MARKED: "qwen35",
}
"""By the pattern of the split that stands before the bytes."""
UNKNOWN = "BPE pre-tokenizer was not recognized"
"""What the converter says of a pre-tokenizer that it does not know."""


def name_by_rule(tokenizer: Mapping[str, Any]) -> str | None:
    """llama.cpp's name of the pre-tokenizer in a tokenizer.json; None where its rules are others."""
    found = tokenizer.get("pre_tokenizer") or {}
    steps = found.get("pretokenizers", []) if found.get("type") == "Sequence" else [found]
    kinds = [step.get("type") for step in steps]
    if not steps or kinds[-1] != "ByteLevel" or steps[-1].get("add_prefix_space"):
        return None
    words = steps[-1].get("use_regex", True)
    if kinds == ["ByteLevel"]:
        return "gpt-2" if words else None
    if kinds == ["Digits", "ByteLevel"]:
        return "smollm" if words and steps[0].get("individual_digits") else None
    if kinds == ["Split", "ByteLevel"] and not words:
        return _SPLITS.get((steps[0].get("pattern") or {}).get("Regex", ""))
    return None
