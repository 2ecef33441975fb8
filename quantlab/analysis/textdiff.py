"""Compare two texts: first token that differs, words that differ, and whether one is longer more often than
by chance."""

from __future__ import annotations

import difflib
import itertools
import math
import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

Kind = Literal["same", "first", "second"]


class Span(NamedTuple):
    """Words that both texts have, or only the first, or only the second; white space kept."""

    kind: Kind
    text: str


def first_divergence(first: Sequence[int], second: Sequence[int]) -> int | None:
    """The index of the first token that differs, the shorter text's length where it is the other's beginning;
    None if equal."""
    if list(first) == list(second):
        return None
    return next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b),
        min(len(first), len(second)),
    )


def word_diff(first: str, second: str) -> list[Span]:
    """The second text as changes of the first, word by word.

    Words are compared without the white space after them, whose own changes are spans of white space alone.
    """
    a, b = (re.findall(r"(\S*)(\s*)", text) for text in (first, second))
    matcher = difflib.SequenceMatcher(None, [word for word, _ in a], [word for word, _ in b], autojunk=False)
    spans: list[Span] = []
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        if tag == "equal":
            spans += [
                span for old, new in zip(a[i1:i2], b[j1:j2], strict=True) for span in _same_word(old, new)
            ]
        else:
            spans += [
                Span("first", "".join(map("".join, a[i1:i2]))),
                Span("second", "".join(map("".join, b[j1:j2]))),
            ]
    return _joined(spans)


def _same_word(first: tuple[str, str], second: tuple[str, str]) -> list[Span]:
    (word, space), (_, other) = first, second
    return (
        [Span("same", word + space)]
        if space == other
        else [Span("same", word), Span("first", space), Span("second", other)]
    )


def _joined(spans: list[Span]) -> list[Span]:
    """One span for what is the same, and at most two where something differs."""
    joined: list[Span] = []
    for same, group in itertools.groupby(
        (span for span in spans if span.text), lambda span: span.kind == "same"
    ):
        parts = list(group)
        kinds: tuple[Kind, ...] = ("same",) if same else ("first", "second")
        texts = [Span(kind, "".join(span.text for span in parts if span.kind == kind)) for kind in kinds]
        joined += [span for span in texts if span.text]
    return joined


def sign_test(first: int, second: int) -> float:
    """The exact two-sided p of so many differences each way: min(1, 2 P[Binomial(first + second, 1/2) <= the
    fewer])."""
    n, few = first + second, min(first, second)
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(few + 1)) / (1 << n))
