"""Parse amounts as people write them: tokens such as 5000M, memory such as 24GB or 24GiB, which differ."""

from __future__ import annotations

import re

from quantlab.errors import QuantlabError

MOST_BYTES, MOST_TOKENS = 2**50, 10**18
_AMOUNT = re.compile(r"\s*(\d{1,18}(?:\.\d{1,9})?)\s*([A-Za-z]*)\s*")
_TOKENS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9, "t": 10**12}
_BYTES = {"mb": 10**6, "gb": 10**9, "tb": 10**12, "mib": 2**20, "gib": 2**30, "tib": 2**40}


def parse_tokens(text: str) -> float:
    """Tokens of `5000M` or `5B`, in powers of 1000. Raises QuantlabError for anything else, and for none."""
    match = _AMOUNT.fullmatch(text)
    factor = _TOKENS.get(match[2].lower()) if match else None
    if not match or factor is None or not float(match[1]):
        raise QuantlabError(
            f"{text[:40]!r} cannot be a number of tokens: write one above 0, such as 5000M or"
            " 5B (powers of 1000)"
        )
    if float(match[1]) * factor > MOST_TOKENS:
        raise QuantlabError(
            f"{text!r} cannot be a number of tokens that anybody makes in a month: write at most"
            f" {MOST_TOKENS // 10**12}T"
        )
    return float(match[1]) * factor


def parse_bytes(text: str) -> int:
    """Bytes of `24GB` (24 · 10^9) or `24GiB` (24 · 2^30). Raises QuantlabError for anything else, a bare
    number too."""
    match = _AMOUNT.fullmatch(text)
    factor = _BYTES.get(match[2].lower()) if match else None
    if not match or factor is None or not float(match[1]):
        raise QuantlabError(
            f"{text[:40]!r} cannot be an amount of memory: write one above 0 with its unit, such as 24GB"
            " (10^9) or 24GiB (2^30)"
        )
    if float(match[1]) * factor > MOST_BYTES:
        raise QuantlabError(
            f"{text!r} cannot be an amount of memory that a device has: write at most"
            f" {MOST_BYTES // 2**40}TiB"
        )
    return int(float(match[1]) * factor)
