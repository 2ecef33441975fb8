"""Ollama's native protocol, replayed in the format of its docs/api.md (objects of a stream, final object,
durations in ns)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from servers import Play, Request, Server, answer, begin, end, good_chat, openai, piece

from quantlab.records.endpoint import EndpointRecord

Serve = Callable[[Play], Server]
Measured = Callable[..., EndpointRecord]
WORDS = (" The", " sky", " is", " blue", " because", " of", " Ray", "leigh")
TAGS = {
    "models": [
        {
            "name": "llama3.2:latest",
            "model": "llama3.2:latest",
            "size": 2019393189,
            "details": {"format": "gguf"},
        }
    ]
}
FINAL = {
    "done": True,
    "done_reason": "length",
    "total_duration": 4883583458,
    "load_duration": 1334875,
    "prompt_eval_count": 40,
    "prompt_eval_duration": 342546000,
    "eval_count": 8,
    "eval_duration": 160000000,
}


def _line(path: str, text: str, **more: Any) -> bytes:
    said: dict[str, Any] = (
        {"message": {"role": "assistant", "content": text}} if path == "/api/chat" else {"response": text}
    )
    head = {"model": "llama3.2", "created_at": "2023-08-04T08:52:19.385406455-07:00", **said, "done": False}
    return json.dumps(head | more).encode() + b"\n"


async def ollama(request: Request, writer: asyncio.StreamWriter) -> None:
    if request.path == "/api/version":
        await answer(writer, '{"version": "0.13.0"}')
    elif request.path == "/api/tags":
        await answer(writer, json.dumps(TAGS))
    else:
        await begin(writer, "application/x-ndjson")
        for word in WORDS:
            await piece(writer, _line(request.path, word))
        await piece(writer, _line(request.path, "", **FINAL))
        await end(writer)


@pytest.mark.parametrize("path", ["", "/api/chat", "/api/generate"])
def test_ollama_is_found_measured_and_its_own_account_kept(
    path: str, serve: Serve, measured: Measured
) -> None:
    server = serve(ollama)
    record = measured(server.url + path)
    assert (record.api, record.model) == ("ollama", "llama3.2:latest")
    assert record.server == ("Ollama 0.13.0" if not path else record.server)
    assert record.url == server.url + (path or "/api/chat")
    level = record.levels[0]
    assert level.summary.good == 6 and level.summary.output_tokens == 48
    assert all(
        r.counted_by == "server" and r.prompt_tokens == 40 and r.finish_reason == "length"
        for r in level.requests
    )
    assert level.requests[0].server_load_seconds == pytest.approx(0.001334875)
    decode, prompt = (
        level.summary.server_decode_tokens_per_second,
        level.summary.server_prompt_tokens_per_second,
    )
    assert decode is not None and decode.value == pytest.approx(8 / 0.16)  # eval_count / eval_duration * 10^9
    assert prompt is not None and prompt.value == pytest.approx(40 / 0.342546)
    sent = next(r for r in reversed(server.seen) if r.method == "POST")
    assert sent.json["options"] == {"num_predict": 8, "temperature": 0} and sent.json["stream"] is True


def test_a_v1_in_the_address_of_an_ollama_is_heeded(serve: Serve, measured: Measured) -> None:
    async def both(request: Request, writer: asyncio.StreamWriter) -> None:
        await (ollama if request.path.startswith("/api/") else openai(good_chat))(request, writer)

    server = serve(both)
    record = measured(server.url + "/v1")
    assert (record.api, record.url) == ("openai", server.url + "/v1/chat/completions") and record.levels[
        0
    ].summary.good == 6
    assert not any(r.path.startswith("/api/") for r in server.seen)


@pytest.mark.parametrize("tags", [None, '{"detail": "Not Found"}', "<html></html>", "[]", '{"models": 3}'])
def test_a_server_with_a_version_under_api_and_no_list_of_models_is_no_ollama(
    tags: str | None, serve: Serve, measured: Measured
) -> None:
    async def web_ui(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.path == "/api/version":
            await answer(writer, '{"version": "0.6.5"}')
        elif request.path == "/api/tags" and tags is not None:
            await answer(writer, tags)
        else:
            await openai(good_chat)(request, writer)

    record = measured(serve(web_ui).url)
    assert (record.api, record.server, record.fault) == ("openai", None, None)


def test_an_error_in_the_middle_of_ollamas_stream(serve: Serve, measured: Measured) -> None:
    async def failing(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.method == "GET":
            await ollama(request, writer)
            return
        await begin(writer, "application/x-ndjson")
        await piece(writer, _line(request.path, WORDS[0]))
        await piece(writer, b'{"error": "an error was encountered while running the model: CUDA error"}\n')
        await end(writer)

    record = measured(serve(failing).url)
    assert (
        record.fault is not None
        and record.fault.kind == "error_in_stream"
        and record.fault.message.endswith("CUDA error")
    )


def test_a_model_that_ollama_does_not_have(serve: Serve, measured: Measured) -> None:
    async def missing(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.method == "GET":
            await ollama(request, writer)
        else:
            await answer(writer, """{"error": "model 'nope' not found"}""", 404)

    record = measured(serve(missing).url, model="nope")
    assert record.fault is not None and (record.fault.kind, record.fault.message) == (
        "not_found",
        "model 'nope' not found",
    )


def test_a_stream_that_stops_without_its_final_object(serve: Serve, measured: Measured) -> None:
    async def stopping(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.method == "GET":
            await ollama(request, writer)
            return
        await begin(writer, "application/x-ndjson")
        await piece(writer, _line(request.path, WORDS[0]))
        await end(writer)

    record = measured(serve(stopping).url)
    assert record.fault is not None and record.fault.kind == "dropped"
