"""Read an answer to a task's item: generated text as it is scored, or the log-probability of a
continuation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from quantlab.endpoint.echo import scored
from quantlab.endpoint.protocols import BROKEN_OFF, CUT
from quantlab.errors import CellFailure

NO_TOKEN = "a continuation has no token of its own, so no log-probability"
_BEGINS, _ENDS = "<think>", "</think>"
"""Around reasoning that a server leaves in the text (the form of DeepSeek, Qwen and those made from them)."""


class ItemAnswer(NamedTuple):
    """An answer as lm-eval gets it."""

    value: Any
    truncated: bool = False
    """Whether a text was cut at its greatest length, or ended within its reasoning."""
    reasoning: bool = False
    """Whether there was reasoning beside the text, or in it."""

    @property
    def empty(self) -> bool:
        """Whether a text has nothing but white space."""
        return isinstance(self.value, str) and not self.value.strip()


def choice_of(answer: dict[str, Any]) -> dict[str, Any]:
    """The one choice of an answer. Raises CellFailure where there is none."""
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise CellFailure("not_measured", "the answer has no choices")
    return choices[0]


def generated(answer: dict[str, Any], chat: bool, stops: Sequence[str]) -> ItemAnswer:
    """The text of an answer, up to the first of the stop strings, without reasoning.

    Raises CellFailure where there is no text: an answer of null is left out, and not scored as a wrong one.
    """
    choice = choice_of(answer)
    said = choice.get("message") if chat else choice
    if not isinstance(said, dict):
        raise CellFailure("not_measured", "the answer has no message")
    reason, beside = (
        choice.get("finish_reason"),
        any(said.get(name) for name in ("reasoning_content", "reasoning")),
    )
    text = said.get("content" if chat else "text")
    if not isinstance(text, str):
        why = (
            "its content is null"
            if text is None
            else f"its content is of type {type(text).__name__} instead of text"
        )
        more = ", there is reasoning alone" if beside else ""
        raise CellFailure(
            "not_measured", f"the answer has no text: {why} (finish_reason {reason!s:.40}{more})"
        )
    if reason == "content_filter":
        raise CellFailure("not_measured", "the server's content filter ended the answer")
    if reason in BROKEN_OFF:
        raise CellFailure("not_measured", f"the server broke the answer off ({reason})")
    thought = text.lstrip().startswith(_BEGINS) or _ENDS in text
    if thought:
        _, ended, text = text.rpartition(_ENDS)
        if not ended:
            return ItemAnswer("", truncated=True, reasoning=True)
        text = text.lstrip()
    cut = str(reason).lower() in CUT
    places = [text.find(stop) for stop in stops if stop in text]
    return ItemAnswer(text[: min(places)] if places else text, cut and not places, thought or beside)


def continuation(answer: dict[str, Any], ids: Sequence[int], context: int) -> tuple[float, bool]:
    """Log-probability of a continuation, and whether each of its tokens is the most likely one.

    `ids` are the tokens of context and continuation by the tokenizer, the first `context` of them the
    context's. Raises CellFailure where the server counts others: a begin token before them is the one
    difference that is allowed; and where no token is the continuation's own, which would be certain and win.
    lm-eval's own parser takes the last entry for a generated token without looking, and would drop a token of
    the continuation where the model ends at once."""
    score = scored(answer, choice_of(answer))
    added = score.prompt_tokens - len(ids)
    if added not in (0, 1):
        raise CellFailure(
            "unsupported",
            f"the server makes {score.prompt_tokens} tokens of a text that has {len(ids)} by the tokenizer"
            " that was named",
        )
    entries = range(context + added, score.prompt_tokens)
    if not entries:
        raise CellFailure("unsupported", NO_TOKEN)
    logprobs, best = [score.token_logprobs[i] for i in entries], [score.top_logprobs[i] for i in entries]
    if any(value is None for value in logprobs) or any(not top for top in best):
        raise CellFailure("unsupported", "the server leaves out the log-probability of a token")
    greedy = all(value == max(top.values()) for value, top in zip(logprobs, best, strict=True) if top)
    return sum(value for value in logprobs if value is not None), greedy
