"""Two texts side by side: where their tokens part, which words differ, and whether one is longer more often than chance would have it."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence
from typing import Literal, NamedTuple


class Span(NamedTuple):
    """Words that both texts have, or only the first, or only the second; white space kept."""

    kind: Literal["same", "first", "second"]
    text: str


def first_divergence(first: Sequence[int], second: Sequence[int]) -> int | None:
    """The index of the first token that differs, the shorter text's length where it is the other's beginning; None if equal."""
    if list(first) == list(second):
        return None
    return next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second)))


def word_diff(first: str, second: str) -> list[Span]:
    """The second text as changes of the first, word by word."""
    a, b = (re.findall(r"\S+\s*|\s+", text) for text in (first, second))
    found: list[Span] = []
    for tag, i1, i2, j1, j2 in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if tag == "equal":
            found.append(Span("same", "".join(a[i1:i2])))
            continue
        found += [Span("first", "".join(a[i1:i2]))] * (i2 > i1) + [Span("second", "".join(b[j1:j2]))] * (j2 > j1)
    return found


def sign_test(first: int, second: int) -> float:
    """The exact two-sided p of so many differences each way: min(1, 2 P[Binomial(first + second, 1/2) <= the fewer])."""
    n, few = first + second, min(first, second)
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(few + 1)) / (1 << n))
