"""Make answers of two variants and compare them."""

from __future__ import annotations

from quantlab.comparison.answers import SideBySide, compare_answers
from quantlab.evaluation.generation import GeneratedAnswer


def said(text: str, *token_ids: int, ended: bool = True) -> GeneratedAnswer:
    """Make an answer of these tokens."""
    return GeneratedAnswer(text, token_ids, ended)


def compared(first: list[GeneratedAnswer], second: list[GeneratedAnswer]) -> SideBySide:
    """Compare answers to made-up prompts."""
    prompts = ["p", "q <b>", "r", "s"][: len(first)]
    return compare_answers("m", ("gguf-16", "gguf-2"), 4, prompts, first, second)


def four() -> SideBySide:
    """Compare four pairs: identical, two that differ, and one that the limit cut on both sides."""
    first = [
        said("one two", 1, 2),
        said("a *b*", 3, 4),
        said("x", 5),
        said("l l l l", 6, 6, 6, 6, ended=False),
    ]
    second = [
        said("one two", 1, 2),
        said("a c d", 3, 5, 6),
        said("x y z w", 5, 7, 8, 9, ended=False),
        said("l k", 6, 7, 8, 9, ended=False),
    ]
    return compared(first, second)
