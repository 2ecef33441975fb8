"""Show two variants' answers side by side: coloured words in a terminal, struck out and bold words in
markdown."""

from __future__ import annotations

import statistics
from typing import Any

from quantlab.analysis.textdiff import Span, word_diff
from quantlab.comparison.answers import Pair, SideBySide
from quantlab.inert import console, literal


def as_json(comparison: SideBySide) -> dict[str, Any]:
    """As `quantlab diff --json` documents it."""
    answers = [
        {
            "prompt": pair.prompt,
            "first": pair.first.text,
            "second": pair.second.text,
            "tokens": list(pair.lengths),
            "ended": [pair.first.ended, pair.second.ended],
            "first_divergent_token": pair.divergent,
        }
        for pair in comparison.pairs
    ]
    first, second = comparison.variants
    about = {
        "model": comparison.model,
        "first": first,
        "second": second,
        "limit_tokens": comparison.limit,
        "identical": comparison.identical,
    }
    return {
        **about,
        "mean_tokens": list(comparison.mean_tokens),
        "cut_off": list(comparison.cut),
        "longer": comparison.longer,
        "answers": answers,
    }


def summary(comparison: SideBySide) -> list[str]:
    """What the answers show, a sentence or two each: how many are the same, from where on they differ, who
    gives longer answers."""
    count = len(comparison.pairs)
    parted = [pair.divergent + 1 for pair in comparison.pairs if pair.divergent is not None]
    lines = [f"{count - len(parted)} of {count} answers are identical, token by token (greedy decoding)."]
    if parted:
        where = f"{statistics.median_low(parted)} (median; {min(parted)} to {max(parted)})"
        lines.append(f"Where they differ, the first other token is number {where}.")
    means = ", ".join(
        f"{name} {mean:.1f}" for name, mean in zip(comparison.variants, comparison.mean_tokens, strict=True)
    )
    lines.append(f"Tokens per answer: {means}.{_limited(comparison)}")
    return [*lines, _which_is_longer(comparison)]


def _limited(comparison: SideBySide) -> str:
    if not any(comparison.cut):
        return f" The limit of {comparison.limit} cut off no answer."
    cut = " and ".join(f"{n} of {name}" for n, name in zip(comparison.cut, comparison.variants, strict=True))
    return (
        f" The limit of {comparison.limit} cut off {cut}, so their full length is unknown: raise it with"
        " --tokens."
    )


def _which_is_longer(comparison: SideBySide) -> str:
    longer = comparison.longer
    a, b, unknown = longer["first"], longer["second"], longer["unknown"]
    told = len(comparison.pairs) - unknown
    untold = f" On {unknown} both were cut off." if unknown else ""
    if not told:
        return "Unknown which gives longer answers: every answer was cut off."
    first, second = comparison.variants
    if a == b:
        return (
            f"Neither gives longer answers: each does on {a} of the {told} prompts where it can be"
            f" told.{untold}"
        )
    name, most = (first, a) if a > b else (second, b)
    chance = comparison.longer_p
    clear = "" if chance < 0.05 else ", which chance alone would often give"
    return (
        f"{name} gives the longer answer on {most} of the {told} prompts where it can be told, the other on"
        f" {min(a, b)} (sign test, p = {chance:.2g}{clear}).{untold}"
    )


def _about(pair: Pair) -> str:
    counts = [
        f"{n}{'' if answer.ended else ' (cut off)'}"
        for n, answer in zip(pair.lengths, (pair.first, pair.second), strict=True)
    ]
    lengths = f"{counts[0]} and {counts[1]} tokens"
    return (
        f"identical, {lengths}"
        if pair.divergent is None
        else f"differ from token {pair.divergent + 1} on, {lengths}"
    )


def markdown(comparison: SideBySide) -> str:
    """Struck out is what only the first says, bold what only the second says."""
    first, second = comparison.variants
    lines = [
        f"# {comparison.model}: {first} against {second}",
        "",
        *(f"- {line}" for line in summary(comparison)),
        "",
    ]
    lines += [f"~~struck out~~: only {first}. **Bold**: only {second}.", ""]
    for pair in comparison.pairs:
        text = "".join(_marked(span) for span in word_diff(pair.first.text, pair.second.text))
        lines += [f"## {literal(' '.join(pair.prompt.split()))}", "", f"*{_about(pair)}*", ""]
        lines += [f"> {line}".rstrip() for line in text.strip().splitlines() or ["*nothing*"]] + [""]
    return "\n".join(lines)


def _marked(span: Span) -> str:
    if span.kind == "same" or not span.text.strip():
        return literal(span.text)
    sign = "~~" if span.kind == "first" else "**"
    lead, tail = span.text[: len(span.text) - len(span.text.lstrip())], span.text[len(span.text.rstrip()) :]
    lines = [line.strip() for line in span.text.strip().splitlines()]
    return lead + "\n".join(f"{sign}{literal(line)}{sign}" if line else "" for line in lines) + tail


def terminal(comparison: SideBySide) -> None:
    """Print it with colours: red is what only the first says, green what only the second says."""
    from rich.text import Text

    screen = console()
    styles = {"same": "", "first": "red strike", "second": "green"}
    for pair in comparison.pairs:
        screen.print(Text(pair.prompt, style="bold"))
        screen.print(Text(_about(pair), style="dim"))
        screen.print(
            Text.assemble(
                *((span.text, styles[span.kind]) for span in word_diff(pair.first.text, pair.second.text))
            )
        )
        screen.print()
    first, second = comparison.variants
    legend = (("red, struck out", "red strike"), f": only {first}; ", ("green", "green"), f": only {second}")
    screen.print(Text.assemble(*legend))
    for line in summary(comparison):
        screen.print(line)
