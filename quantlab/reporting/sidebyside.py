"""Two variants' answers as people read them: coloured words in a terminal, struck out and bold words in markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from quantlab.analysis.textdiff import Span, first_divergence, word_diff
from quantlab.generation import Answer


class Pair(NamedTuple):
    """Both answers to one prompt."""

    prompt: str
    first: Answer
    second: Answer
    divergent: int | None
    """Index of the first token that differs; None where the answers are the same."""


class SideBySide(NamedTuple):
    """All answers of two variants."""

    model: str
    variants: tuple[str, str]
    pairs: tuple[Pair, ...]

    @property
    def identical(self) -> float:
        """Share of prompts with the same answer."""
        return sum(pair.divergent is None for pair in self.pairs) / len(self.pairs)

    @property
    def mean_tokens(self) -> tuple[float, float]:
        """Tokens per answer of each."""
        n = len(self.pairs)
        return sum(len(p.first.token_ids) for p in self.pairs) / n, sum(len(p.second.token_ids) for p in self.pairs) / n

    def as_json(self) -> dict[str, Any]:
        """As `quantlab diff --json` documents it."""
        answers = [
            {
                "prompt": pair.prompt,
                "first": pair.first.text,
                "second": pair.second.text,
                "tokens": [len(pair.first.token_ids), len(pair.second.token_ids)],
                "first_divergent_token": pair.divergent,
            }
            for pair in self.pairs
        ]
        first, second = self.variants
        about = {"model": self.model, "first": first, "second": second, "identical": self.identical}
        return {**about, "mean_tokens": list(self.mean_tokens), "answers": answers}


def compare(model: str, variants: tuple[str, str], prompts: Sequence[str], first: Sequence[Answer], second: Sequence[Answer]) -> SideBySide:
    """Pair the answers up."""
    pairs = [Pair(p, a, b, first_divergence(a.token_ids, b.token_ids)) for p, a, b in zip(prompts, first, second, strict=True)]
    return SideBySide(model, variants, tuple(pairs))


def _summary(found: SideBySide) -> str:
    a, b = found.mean_tokens
    same = sum(pair.divergent is None for pair in found.pairs)
    parted = sorted(pair.divergent for pair in found.pairs if pair.divergent is not None)
    where = f" Where they differ, the first other token is number {parted[len(parted) // 2] + 1} (median)." if parted else ""
    return (
        f"{same} of {len(found.pairs)} answers are identical.{where} Tokens per answer: {found.variants[0]} {a:.1f}, "
        f"{found.variants[1]} {b:.1f}. Greedy decoding."
    )


def _about(pair: Pair) -> str:
    lengths = f"{len(pair.first.token_ids)} and {len(pair.second.token_ids)} tokens"
    return f"identical, {lengths}" if pair.divergent is None else f"differ from token {pair.divergent + 1} on, {lengths}"


def markdown(found: SideBySide) -> str:
    """Struck out is what only the first says, bold what only the second says."""
    first, second = found.variants
    lines = [f"# {found.model}: {first} against {second}", "", _summary(found), ""]
    lines += [f"~~struck out~~: only {first}. **Bold**: only {second}.", ""]
    for pair in found.pairs:
        text = "".join(_marked(span) for span in word_diff(pair.first.text, pair.second.text))
        lines += [f"## {_plain(' '.join(pair.prompt.split()))}", "", f"*{_about(pair)}*", ""]
        lines += [f"> {line}".rstrip() for line in text.strip().splitlines() or ["*nothing*"]] + [""]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Text with markdown's and HTML's signs taken literally."""
    for sign in "\\`*_~[]<>#|":
        text = text.replace(sign, f"\\{sign}")
    return text


def _marked(span: Span) -> str:
    if span.kind == "same" or not span.text.strip():
        return _plain(span.text)
    sign = "~~" if span.kind == "first" else "**"
    lead, tail = span.text[: len(span.text) - len(span.text.lstrip())], span.text[len(span.text.rstrip()) :]
    lines = [line.strip() for line in span.text.strip().splitlines()]
    return lead + "\n".join(f"{sign}{_plain(line)}{sign}" if line else "" for line in lines) + tail


def terminal(found: SideBySide) -> None:
    """Print it with colours: red is what only the first says, green what only the second says."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    styles = {"same": "", "first": "red strike", "second": "green"}
    for pair in found.pairs:
        console.print(Text(pair.prompt, style="bold"))
        console.print(Text(_about(pair), style="dim"))
        console.print(Text.assemble(*((span.text, styles[span.kind]) for span in word_diff(pair.first.text, pair.second.text))))
        console.print()
    first, second = found.variants
    legend = (("red, struck out", "red strike"), f": only {first}; ", ("green", "green"), f": only {second}")
    console.print(Text.assemble(*legend))
    console.print(_summary(found))
