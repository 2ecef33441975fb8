"""Check whether a server returns correct log-probabilities of a prompt's own tokens (`echo` with `logprobs`).

Many servers ignore `echo`; some shift the numbers by a position. Each number is therefore compared with the
one that the same server gives when it generates a token at that position."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from quantlab.endpoint.asking import Server, ask
from quantlab.endpoint.prompts import prompt
from quantlab.endpoint.secrets import Key
from quantlab.errors import CellFailure

OFFERED = "offered"
_TOLERANCE_NATS = 0.05
_ABOVE = 1e-3
"""What rounding may add to the log-probability of a certain token, which is 0."""
_TRIES, _CHECKS = 8, 4
_WORDS, _MORE_WORDS = 8, 12


class Scored(NamedTuple):
    """The log-probabilities in one answer; entry i is of token i given the tokens before it."""

    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    prompt_tokens: int
    """How many of the entries are the prompt's; the rest was generated."""


def scored(answer: dict[str, Any], choice: dict[str, Any]) -> Scored:
    """The log-probabilities of a choice. Raises CellFailure where there are none, or not as many as the
    server counts."""
    logprobs, usage = (
        value if isinstance(value, dict) else {} for value in (choice.get("logprobs"), answer.get("usage"))
    )
    tokens, top = logprobs.get("token_logprobs"), logprobs.get("top_logprobs")
    if not isinstance(tokens, list) or not isinstance(top, list) or len(tokens) != len(top) or not tokens:
        raise CellFailure(
            "unsupported",
            "the server gives no log-probabilities as OpenAI's completions do (token_logprobs and"
            " top_logprobs)",
        )
    if not all(value is None or _is_logprob(value) for value in tokens) or not all(map(_is_ranking, top)):
        raise CellFailure(
            "unsupported",
            "the server gives invalid log-probabilities: other than numbers, not finite, or above 0",
        )
    generated = usage.get("completion_tokens")
    if not isinstance(generated, int) or not 0 <= generated <= 1:
        raise CellFailure("unsupported", "the server does not say how many tokens it generated")
    return Scored(tokens, top, len(tokens) - generated)


def _is_logprob(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and value <= _ABOVE


def _is_ranking(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and all(map(_is_logprob, value.values())))


def offers_prompt_logprobs(url: str, model: str, key: Key | None, timeout_seconds: float) -> str:
    """`offered`, or why the server's log-probabilities of a prompt cannot be used: four prompts must
    agree."""
    agreed = 0
    for index in range(_TRIES):
        words = prompt(_MORE_WORDS, index, seed=1).split()
        short, long = " ".join(words[:_WORDS]), " ".join(words)
        try:
            begun, whole = (_ask(url, model, text, True, key, timeout_seconds) for text in (short, long))
            if (
                begun.prompt_tokens < _WORDS
                or whole.prompt_tokens < begun.prompt_tokens + _MORE_WORDS - _WORDS
            ):
                return "not offered by this server: it ignores echo"
            generated = _ask(url, model, short, False, key, timeout_seconds)
        except CellFailure as failure:
            return f"not offered by this server: {failure.reason}"
        here, there = generated.top_logprobs[0], whole.top_logprobs[begun.prompt_tokens]
        if generated.prompt_tokens != 0 or not here or not there:
            continue  # it ended at once: another prompt
        if abs(max(here.values()) - max(there.values())) > _TOLERANCE_NATS:
            return (
                "not offered by this server: what it echoes for a position is not what it gives when it"
                " generates there"
            )
        agreed += 1
        if agreed == _CHECKS:
            return OFFERED
    return "not offered by this server: it could not be checked, the model ends most texts at once"


def _ask(url: str, model: str, text: str, echo: bool, key: Key | None, timeout_seconds: float) -> Scored:
    body: dict[str, Any] = {
        "model": model,
        "prompt": text,
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": 1,
        "echo": echo,
    }
    answer = ask(Server(url, key, timeout_seconds), body)
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise CellFailure("unsupported", "the answer has no choices")
    return scored(answer, choices[0])
