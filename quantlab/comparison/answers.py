"""Compare the answers of two variants to the same prompts: where they part, and which are longer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

from quantlab.analysis.textdiff import first_divergence, sign_test
from quantlab.evaluation.generation import GeneratedAnswer

Longer = Literal["first", "second", "same", "unknown"]


class Pair(NamedTuple):
    """Both answers to one prompt."""

    prompt: str
    first: GeneratedAnswer
    second: GeneratedAnswer
    divergent: int | None
    """Index of the first token that differs, the shorter answer's length where one begins the other; None
    where both are the same."""

    @property
    def lengths(self) -> tuple[int, int]:
        """Tokens of each."""
        return len(self.first.token_ids), len(self.second.token_ids)

    @property
    def longer(self) -> Longer:
        """Which one is longer: that can be told although one of them was cut off, and not where both were."""
        if not self.first.ended and not self.second.ended:
            return "unknown"
        a, b = self.lengths
        return "same" if a == b else "first" if a > b else "second"


class SideBySide(NamedTuple):
    """All answers of two variants."""

    model: str
    variants: tuple[str, str]
    limit: int
    """Tokens per answer at the most."""
    pairs: tuple[Pair, ...]

    @property
    def identical(self) -> float:
        """Share of prompts with the same answer."""
        return sum(pair.divergent is None for pair in self.pairs) / len(self.pairs)

    @property
    def mean_tokens(self) -> tuple[float, float]:
        """Tokens per answer of each, those that were cut off counted as far as they went."""
        lengths = [pair.lengths for pair in self.pairs]
        return sum(a for a, _ in lengths) / len(lengths), sum(b for _, b in lengths) / len(lengths)

    @property
    def cut(self) -> tuple[int, int]:
        """How many answers of each the limit cut off."""
        return sum(not pair.first.ended for pair in self.pairs), sum(
            not pair.second.ended for pair in self.pairs
        )

    @property
    def longer(self) -> dict[Longer, int]:
        """On how many prompts which one is longer."""
        kinds = [pair.longer for pair in self.pairs]
        return {kind: kinds.count(kind) for kind in get_args(Longer)}

    @property
    def longer_p(self) -> float:
        """Two-sided p of the sign test that both give longer answers equally often."""
        return sign_test(self.longer["first"], self.longer["second"])


def compare_answers(
    model: str,
    variants: tuple[str, str],
    limit: int,
    prompts: Sequence[str],
    first: Sequence[GeneratedAnswer],
    second: Sequence[GeneratedAnswer],
) -> SideBySide:
    """Pair the answers up."""
    pairs = [
        Pair(p, a, b, first_divergence(a.token_ids, b.token_ids))
        for p, a, b in zip(prompts, first, second, strict=True)
    ]
    return SideBySide(model, variants, limit, tuple(pairs))
