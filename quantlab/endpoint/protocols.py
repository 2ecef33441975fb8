"""Translate requests and events of the answer for each protocol.

Sources: OpenAI's API reference (chat and legacy completions, streaming, `stream_options`), vLLM's own
benchmark for what servers really send, and Ollama's docs/api.md."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from quantlab.endpoint.address import Path
from quantlab.endpoint.streams import DONE, JsonLines, Malformed, ServerSentEvents

LimitField = Literal["max_tokens", "max_completion_tokens"]
"""What OpenAI's protocol calls the most tokens of an answer: the first was withdrawn, and most servers know
it alone."""
BROKEN_OFF = ("abort", "error", "cancelled")
"""Finish reasons of an answer that is none."""
CUT = ("length", "max_tokens", "model_length")
"""Finish reasons of an answer that the limit on tokens ended, as OpenAI, Anthropic and Mistral call it."""
_NANOSECOND = 1e-9
_MOST_TOKENS = 10**9
"""A count beyond it is none."""


class Ask(NamedTuple):
    """What one request asks for."""

    model: str
    prompt: str
    tokens: int
    ignore_end: bool = False
    """Ask the server to go on past the end of text (vLLM, SGLang and llama-server know `ignore_eos`)."""
    limit_field: LimitField = "max_tokens"
    usage: bool = True
    """Ask the server to count the tokens at the end of the stream (`stream_options`)."""


class Event(NamedTuple):
    """What one payload says."""

    text: bool = False
    """Whether it carries generated text (of reasoning, too)."""
    reasoning: bool = False
    """Whether some of it is reasoning."""
    words: int = 0
    """Words in its text: of at least so many tokens it is made."""
    token: bool = False
    """Whether it stands for a token: text, or none yet because the token is a part of a character."""
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    """How many of the output tokens are reasoning, seen or not."""
    uncounted_tokens: int | None = None
    """Tokens of the server's total that it counts neither in the prompt nor in the output."""
    total: bool = False
    """Whether it is OpenAI's last event, which counts the whole answer and comes only where that was not
    interrupted."""
    done: bool = False
    """Whether the server says that nothing follows."""
    error: str | None = None
    seconds: Mapping[str, float] = {}
    """What the server says its steps took: `prompt`, `decode`, `load`."""
    rates: Mapping[str, float] = {}
    """What the server says of its own speed, in tokens per second: `prompt`, `decode`."""


def body(path: Path, ask: Ask) -> dict[str, Any]:
    """The JSON of a request: greedy, streamed, with the counts asked for."""
    if path.startswith("api/"):
        text: dict[str, Any] = (
            {"messages": [{"role": "user", "content": ask.prompt}]}
            if path == "api/chat"
            else {"prompt": ask.prompt}
        )
        return {
            "model": ask.model,
            **text,
            "stream": True,
            "options": {"num_predict": ask.tokens, "temperature": 0},
        }
    text = (
        {"messages": [{"role": "user", "content": ask.prompt}]}
        if path == "chat/completions"
        else {"prompt": ask.prompt}
    )
    wanted = {"model": ask.model, **text, ask.limit_field: ask.tokens, "temperature": 0, "stream": True}
    return (
        wanted
        | ({"stream_options": {"include_usage": True}} if ask.usage else {})
        | ({"ignore_eos": True} if ask.ignore_end else {})
    )


def count_body(path: Path, ask: Ask) -> dict[str, Any]:
    """The JSON of a request that is not streamed: one token, to have the server count the prompt."""
    wanted = body(path, ask._replace(tokens=1)) | {"stream": False}
    return {name: value for name, value in wanted.items() if name != "stream_options"}


def counted_prompt(path: Path, answer: Any) -> int | None:
    """The prompt's tokens in an answer that was not streamed."""
    fields = answer if isinstance(answer, dict) else {}
    if path.startswith("api/"):
        return _count(fields.get("prompt_eval_count"))
    usage = fields.get("usage")
    return _count(usage.get("prompt_tokens")) if isinstance(usage, dict) else None


def decoder(path: Path) -> ServerSentEvents | JsonLines:
    """What takes the stream of an endpoint apart."""
    return JsonLines() if path.startswith("api/") else ServerSentEvents()


def read(path: Path, payload: Any) -> Event:
    """What a payload says. Raises Malformed for one that is not the protocol's."""
    if payload == DONE:
        return Event(done=True)
    if not isinstance(payload, dict):
        raise Malformed(f"a payload without a JSON object: {payload}")
    if payload.get("error") or payload.get("object") == "error":
        return Event(error=message_of(payload))
    return _ollama(path, payload) if path.startswith("api/") else _openai(path, payload)


def message_of(payload: Any) -> str:
    """The text of an error object, in one line."""
    message = payload.get("error", payload) if isinstance(payload, dict) else payload
    if isinstance(message, dict):
        message = message.get("message") or message.get("type") or message
    return " ".join(str(message).split())


_REASONING = ("reasoning_content", "reasoning")


def _openai(path: Path, payload: dict[str, Any]) -> Event:
    usage, choices = payload.get("usage") or {}, payload.get("choices") or []
    if (
        not isinstance(usage, dict)
        or not isinstance(choices, list)
        or not all(isinstance(c, dict) for c in choices)
    ):
        raise Malformed("an event whose choices or usage have another shape")
    if not usage and "choices" not in payload:
        raise Malformed(f"an event without choices: {payload}")
    choice = choices[0] if choices else {}
    said = choice.get("delta") or {} if path == "chat/completions" else choice
    if not isinstance(said, dict):
        raise Malformed("an event whose delta has another shape")
    chat = path == "chat/completions"
    texts = [
        said[name]
        for name in (("content", *_REASONING) if chat else ("text",))
        if isinstance(said.get(name), str)
    ]
    text = any(texts)
    own = _timings(payload.get("timings"))
    pending = "" in texts and "role" not in said and not choice.get("finish_reason")
    return Event(
        text=text,
        reasoning=chat and any(said.get(name) for name in _REASONING),
        words=sum(len(each.split()) for each in texts),
        token=text or pending,
        finish_reason=_text(choice.get("finish_reason")),
        prompt_tokens=_count(usage.get("prompt_tokens")),
        output_tokens=_count(usage.get("completion_tokens")),
        reasoning_tokens=_reasoning_tokens(usage),
        uncounted_tokens=_uncounted(usage),
        total=bool(usage) and not choices,
        seconds=own.seconds,
        rates=own.rates,
    )


class _Own(NamedTuple):
    """A server's own account of a request."""

    seconds: Mapping[str, float] = {}
    rates: Mapping[str, float] = {}


def _timings(said: Any) -> _Own:
    """llama.cpp's own account of a request. It makes a decode speed up where there is only one token."""
    if not isinstance(said, dict):
        return _Own()
    seconds = {"prompt": _number(said.get("prompt_ms")), "decode": _number(said.get("predicted_ms"))}
    rates = {"prompt": _number(said.get("prompt_per_second"))}
    if (_count(said.get("predicted_n")) or 0) > 1:
        rates["decode"] = _number(said.get("predicted_per_second"))
    return _Own(
        {name: 1e-3 * value for name, value in seconds.items() if value is not None},
        {name: value for name, value in rates.items() if value},
    )


def _reasoning_tokens(usage: dict[str, Any]) -> int | None:
    """OpenAI has them in the details, SGLang in the usage itself."""
    details = usage.get("completion_tokens_details")
    told = _count(details.get("reasoning_tokens")) if isinstance(details, dict) else None
    return _count(usage.get("reasoning_tokens")) if told is None else told


def _uncounted(usage: dict[str, Any]) -> int | None:
    """Reasoning as Grok and Gemini count it: in the total alone."""
    counts = [_count(usage.get(f"{name}_tokens")) for name in ("total", "prompt", "completion")]
    if counts[0] is None or counts[1] is None or counts[2] is None:
        return None
    return max(0, counts[0] - counts[1] - counts[2])


def _ollama(path: Path, payload: dict[str, Any]) -> Event:
    if not isinstance(payload.get("done"), bool):
        raise Malformed(f"an object without `done`: {payload}")
    said = payload.get("message") or {} if path == "api/chat" else payload
    if not isinstance(said, dict):
        raise Malformed("an object whose message has another shape")
    durations = {"prompt": "prompt_eval_duration", "decode": "eval_duration", "load": "load_duration"}
    seconds = {
        name: _NANOSECOND * payload[key] for name, key in durations.items() if _is_duration(payload.get(key))
    }
    counts = {"prompt": _count(payload.get("prompt_eval_count")), "decode": _count(payload.get("eval_count"))}
    texts = [said[name] for name in ("content", "response", "thinking") if isinstance(said.get(name), str)]
    text = any(texts)
    return Event(
        text=text,
        reasoning=bool(said.get("thinking")),
        words=sum(len(each.split()) for each in texts),
        token=text,
        finish_reason=(_text(payload.get("done_reason")) or "stop") if payload["done"] else None,
        prompt_tokens=counts["prompt"],
        output_tokens=counts["decode"],
        done=payload["done"],
        seconds=seconds,
        rates={
            name: count / seconds[name]
            for name, count in counts.items()
            if count is not None and seconds.get(name)
        },
    )


def _count(value: Any) -> int | None:
    return (
        value
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS
        else None
    )


def _is_duration(value: Any) -> bool:
    """Whether a value is nanoseconds of at most a day."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 86_400 * 10**9


def _number(value: Any) -> float | None:
    """A finite number that milliseconds or a speed can have."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS
    return float(value) if number else None


def _text(value: Any) -> str | None:
    """A finish reason. An empty one is none: OpenAI has null until the end, and some servers '' in its
    place."""
    if not isinstance(value, str) or not value:
        return None
    return value.lower() if re.fullmatch(r"[A-Za-z_]{1,40}", value) else "other"
