"""Find out what answers at an address: protocol, model, endpoints."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from quantlab.endpoint import protocols
from quantlab.endpoint.address import Api, Path
from quantlab.endpoint.client import Client, Connection, of_library
from quantlab.endpoint.protocols import Ask
from quantlab.endpoint.reading import json_of
from quantlab.endpoint.secrets import redact
from quantlab.endpoint.streams import Malformed
from quantlab.errors import QuantlabError
from quantlab.records.endpoint import Fault, RequestRecord

_OTHER_PATH: dict[Path, Path] = {"chat/completions": "completions"}
_OWNERS = {"vllm": "vLLM", "llamacpp": "llama.cpp", "sglang": "SGLang"}
_WITHOUT = ((False, True), (True, False), (False, False))
"""`ignore_eos` and `stream_options` in the order in which a request is tried without them."""
_DESCRIBE_SECONDS = 5.0
_OTHER_WAY = ("rejected", "server_error", "error_in_stream")
"""Faults of a request that may be put otherwise."""
_REFUSED = ("not_found", "malformed", *_OTHER_WAY)


class Service(NamedTuple):
    """What a server says of itself."""

    api: Api
    server: str | None


class Trial(NamedTuple):
    """The first request that the server answered, and how it had to be put."""

    path: Path
    ask: Ask
    request: RequestRecord
    notes: tuple[str, ...] = ()


async def find_api(client: Client) -> Service | Fault:
    """The protocol that a server speaks: Ollama's where it gives a version and a list of models under /api,
    else OpenAI's.

    The version alone does not show it: Open WebUI gives one at the same place.
    """
    answers = []
    for path, name, kind in (("api/version", "version", str), ("api/tags", "models", list)):
        answer = await get(client, path)
        if isinstance(answer, Fault) and answer.kind in ("unreachable", "timeout", "redirected"):
            return answer
        value = answer.get(name) if isinstance(answer, dict) else None
        if not isinstance(value, kind):
            return Service("openai", None)
        answers.append(value)
    return Service("ollama", redact(f"Ollama {answers[0]}", client.key)[:60])


async def find_model(client: Client, api: Api, wanted: str | None) -> str | Fault:
    """The model asked for, or the only one that the server has. Raises QuantlabError where there is a choice
    to make."""
    if wanted:
        return wanted
    answer = await get(client, "api/tags" if api == "ollama" else "models")
    if isinstance(answer, Fault):
        return answer
    listed = answer.get("models" if api == "ollama" else "data") if isinstance(answer, dict) else None
    names: list[str] = [
        redact(name, client.key) for name in map(_name, listed if isinstance(listed, list) else []) if name
    ]
    if len(names) == 1:
        return names[0]
    if not names:
        raise QuantlabError("the server lists no model: name one with --model")
    raise QuantlabError(
        f"the server has several models, name one with --model: {', '.join(sorted(names)[:12])}"
    )


async def try_out(client: Client, model: str, text: str, tokens: int) -> Trial | Fault:
    """A first request with this prompt, put in the way that the server takes.

    With `ignore_eos` and `stream_options`, else without one of them, else without both; with `max_tokens`,
    else `max_completion_tokens`; chat, else completions.
    """
    if client.path.startswith("api/"):
        answer = await client.send(Ask(model, text, tokens), time.perf_counter())
        return answer.fault or Trial(client.path, Ask(model, text, tokens), answer)
    first: Fault | None = None
    paths = [client.path] if client.address.path else [client.path, _OTHER_PATH[client.path]]
    for path in paths:
        client.path = path
        ask: Ask | None = Ask(model, text, tokens, True)
        tried = dict[Ask, Fault]()
        while ask:
            answer = await client.send(ask, time.perf_counter())
            if answer.fault is None:
                notes = _notes(ask, tried)
                if first and path != paths[0]:
                    notes.append(f"/v1/{paths[0]} was refused ({first.message}); /v1/{path} was measured.")
                return Trial(path, ask, answer, tuple(notes))
            first, tried[ask] = first or answer.fault, answer.fault
            if answer.fault.kind not in _REFUSED:
                return answer.fault
            ask = _put_otherwise(ask, tried) if answer.fault.kind in _OTHER_WAY else None
    assert first is not None
    return first


def _put_otherwise(ask: Ask, tried: Mapping[Ask, Fault]) -> Ask | None:
    """The next way to put a request that was refused; None where there is none.

    What the server names is left out; where it names nothing, each of the two that not every server knows is
    left out alone and then both."""
    said = tried[ask].message
    if ask.limit_field == "max_tokens" and "max_completion_tokens" in said:
        return ask._replace(limit_field="max_completion_tokens")
    named = ask._replace(
        ignore_end=ask.ignore_end and "ignore_eos" not in said,
        usage=ask.usage and "stream_options" not in said,
    )
    others = (ask._replace(ignore_end=end, usage=usage) for end, usage in _WITHOUT)
    return next((way for way in (named, *others) if way not in tried), None)


def _notes(ask: Ask, tried: Mapping[Ask, Fault]) -> list[str]:
    """What was left out so that the server answers, and what it said."""
    if ask.usage or not tried:
        return []
    said = next(fault.message for way, fault in tried.items() if way.usage)
    return [f"The server refused stream_options ({said}): it was not asked to count its tokens."]


async def describe(client: Client) -> str | None:
    """What an OpenAI-compatible server calls itself: `owned_by` of its models or its Server header, and its
    /version."""
    client.timeout_seconds, timeout = min(client.timeout_seconds, _DESCRIBE_SECONDS), client.timeout_seconds
    try:
        models = await get(client, "models")
        version = await call(client, "GET", "version", None, client.address.root("version"))
    finally:
        client.timeout_seconds = timeout
    listed = models.get("data") if isinstance(models, dict) else None
    first = listed[0] if isinstance(listed, list) and listed and isinstance(listed[0], dict) else {}
    name = _OWNERS.get(str(first.get("owned_by"))) or client.server_header
    number = version.get("version") if isinstance(version, dict) else None
    said = " ".join(part for part in (name, number if isinstance(number, str) else None) if part)
    return client.line(said)[:60] or None


async def count_prompt(client: Client, ask: Ask) -> int | None:
    """How many tokens the server counts in a prompt; None where it does not say."""
    answer = await call(client, "POST", client.path, protocols.count_body(client.path, ask))
    return None if isinstance(answer, Fault) else protocols.counted_prompt(client.path, answer)


async def get(client: Client, path: str) -> Any:
    """The JSON of a GET, or the fault that it met."""
    return await call(client, "GET", path, None)


async def call(client: Client, method: str, path: str, body: Any, url: str | None = None) -> Any:
    """The JSON of an answer that is not streamed, or the fault that the request met."""
    import aiohttp

    while True:
        connection = Connection()
        try:
            async with (
                asyncio.timeout(client.timeout_seconds),
                client.session.request(
                    method,
                    url or client.address.url(path),
                    json=body,
                    allow_redirects=False,
                    trace_request_ctx=connection,
                ) as response,
            ):
                connection.answered = True
                client.server_header = response.headers.get("Server", client.server_header)
                if response.status != 200:
                    return await client.refusal(response)
                return await json_of(response)
        except TimeoutError:
            return client.fault("timeout", f"no answer after {client.timeout_seconds:g} s")
        except Malformed as error:
            return client.fault("malformed", str(error))
        except (aiohttp.ClientError, OSError) as error:
            if client.ended_too_early(error, connection):
                continue
            return client.fault(*of_library(error, "no answer yet"))


def _name(entry: Any) -> str | None:
    name = (entry.get("id") or entry.get("name")) if isinstance(entry, dict) else None
    return name if isinstance(name, str) and len(name) <= 200 and name.isprintable() else None
