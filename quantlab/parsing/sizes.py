"""Parse sizes as people write them: a context such as 32k, and the number of parameters in a model's name."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from quantlab.errors import QuantlabError

_CONTEXT = re.compile(r"\s*(\d{1,18})(?:\.(\d{1,6}))?\s*([kKmM]?)\s*", re.ASCII)
MOST_TOKENS = 2**30
"""1024M: a hundred times the longest context of any model."""
_FACTORS = {"": 1, "k": 1024, "m": 1024 * 1024}
_NAMED = re.compile(r"(?<![\w.])(\d{1,5}(?:\.\d{1,3})?)([bt])(?![a-z0-9])")
_ACTIVE = re.compile(r"(?<![\w.])a(\d{1,5}(?:\.\d{1,3})?)b(?![a-z0-9])")


def parse_context(text: str) -> int:
    """Tokens of `8192`, `32k` (32 · 1024) or `1M` (1024 · 1024). Raises QuantlabError for anything else, and
    for none."""
    match = _CONTEXT.fullmatch(text)
    if match:
        whole, part, unit = match.groups()
        tokens = Fraction(f"{whole}.{part or 0}") * _FACTORS[unit.lower()]
        if tokens > MOST_TOKENS:
            raise QuantlabError(
                f"{text[:40]!r} cannot be a context: no model has so many tokens, write at most"
                f" {MOST_TOKENS // 2**20}M"
            )
        if tokens >= 1 and tokens.denominator == 1:
            return int(tokens)
    raise QuantlabError(
        f"{text[:40]!r} cannot be a context: write a whole number of tokens, 1 or more, such as 8192, 32k"
        " (32 × 1024) or 1M (1024 × 1024)"
    )


class NamedSize(NamedTuple):
    """Parameters that a name states."""

    total: int
    active: int | None


def named_size(name: str) -> NamedSize | None:
    """The size in a model's name, such as 72b or 397b-a17b; None where it states none."""
    lowered = name.lower()
    total, active = _NAMED.search(lowered), _ACTIVE.search(lowered)
    if not total or not float(total[1]):
        return None
    factor = 10**9 if total[2] == "b" else 10**12
    return NamedSize(round(float(total[1]) * factor), round(float(active[1]) * 10**9) if active else None)
