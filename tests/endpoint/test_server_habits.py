"""Habits of real servers: what they refuse, how they count, and what their last event is. Each has a small
server here."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from servers import Play, Request, Server, answer, begin, chat_event, end, good_chat, openai, piece, tokens_of

from quantlab.endpoint.statistics import time_per_output_token
from quantlab.records.endpoint import EndpointRecord, RequestRecord

Serve = Callable[[Play], Server]
Measured = Callable[..., EndpointRecord]


def _refusing(fields: tuple[str, ...], said: str, status: int = 400) -> Play:
    async def play(request: Request, writer: asyncio.StreamWriter) -> None:
        wrong = [name for name in fields if name in request.json]
        if not wrong:
            await (good_chat if request.json["stream"] is False else _uncounted)(request, writer)
        else:
            body = {"error": {"message": said.format(wrong[0])}}
            await answer(writer, json.dumps(body), status)

    return openai(play)


async def _uncounted(request: Request, writer: asyncio.StreamWriter) -> None:
    await begin(writer)
    for n in range(request.json["max_tokens"]):
        await piece(writer, chat_event(f" w{n}"))
    await piece(writer, chat_event(finish="length") + "data: [DONE]\n\n")
    await end(writer)


@pytest.mark.parametrize("status", [400, 422, 500])
@pytest.mark.parametrize("said", ["Unknown field: {}", "extra fields not permitted", "Internal Server Error"])
def test_a_server_that_refuses_stream_options_is_asked_without(
    said: str, status: int, serve: Serve, measured: Measured
) -> None:
    """Whether it says what it refuses or not; ignore_eos, which it takes, is kept."""
    server = serve(_refusing(("stream_options",), said, status))
    record = measured(server.url)
    assert (record.fault, record.ignores_end, record.asks_usage) == (None, True, False)
    assert [level.summary.good for level in record.levels] == [6, 6]
    assert all((r.output_tokens, r.counted_by) == (8, "events") for r in record.levels[0].requests)
    assert record.prompt_tokens_counted  # whole answers have a count all the same
    assert any(note.startswith("The server refused stream_options (") for note in record.notes)
    asked = [r.json for r in server.seen if r.method == "POST"]
    assert sum("stream_options" in body for body in asked) <= 2  # of the first tries alone


@pytest.mark.parametrize("said", ["Unknown field: {}", "extra fields not permitted"])
def test_a_server_that_refuses_both_is_asked_with_neither(
    said: str, serve: Serve, measured: Measured
) -> None:
    record = measured(serve(_refusing(("ignore_eos", "stream_options"), said)).url)
    assert (record.fault, record.ignores_end, record.asks_usage) == (None, False, False)
    assert record.levels[0].summary.good == 6


@pytest.mark.parametrize("said", ["Unknown field: {}", "extra fields not permitted"])
def test_a_server_that_refuses_ignore_eos_is_still_asked_for_its_count(
    said: str, serve: Serve, measured: Measured
) -> None:
    record = measured(serve(_refusing(("ignore_eos",), said)).url)
    assert (record.fault, record.ignores_end, record.asks_usage) == (None, False, True)


def test_a_refusal_of_everything_is_the_first_ones_words(serve: Serve, measured: Measured) -> None:
    tries = itertools.count()

    async def refuse(request: Request, writer: asyncio.StreamWriter) -> None:
        await answer(writer, json.dumps({"error": f"no {next(tries)}"}), 400)

    record = measured(serve(openai(refuse)).url)
    assert record.fault is not None and record.fault.message == "no 0" and next(tries) == 4


def _chat_at(path: str) -> Play:
    async def serve(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.path == path:
            await good_chat(request, writer)
        else:
            await answer(writer, '{"error": "nothing here"}', 404)

    return serve


@pytest.mark.parametrize(
    "path",
    [
        "/chat/completions",
        "/v1/chat/completions",
        "/chat/completions/",
        "/inference/chat/completions",
        "/v1/models/tiny/chat/completions",
        "/api/v1/chat/completions",
    ],
)
def test_a_full_url_is_called_as_given(path: str, serve: Serve, measured: Measured) -> None:
    server = serve(_chat_at(path))
    record = measured(server.url + path, model="tiny")
    assert record.fault is None and record.url == server.url + path
    assert [level.summary.good for level in record.levels] == [6, 6]
    assert {r.path for r in server.seen if r.method == "POST"} == {path}


def _stream(events: list[str], usage: dict[str, Any] | None, last: dict[str, Any] | None = None) -> Play:
    """These events, 10 ms apart; then a last choice with the usage in the same event, or in one of its own."""

    async def play(request: Request, writer: asyncio.StreamWriter) -> None:
        if not request.json["stream"]:
            await good_chat(request, writer)
            return
        counts = None if usage is None else {"prompt_tokens": tokens_of(request), **usage}
        await begin(writer)
        for each in events:
            await piece(writer, each)
            await asyncio.sleep(0.01)
        if last is not None:
            await piece(writer, f"data: {json.dumps({'choices': [last], 'usage': counts})}\n\n")
        elif counts is not None:
            await piece(writer, chat_event(usage=counts))
        await piece(writer, "data: [DONE]\n\n")
        await end(writer)

    return openai(play)


def _requests(play: Play, serve: Serve, measured: Measured, **changes: Any) -> tuple[RequestRecord, ...]:
    record = measured(serve(play).url, requests=3, concurrency=(1,), **changes)
    assert record.fault is None, record.fault
    return record.levels[0].requests


_WORDS = [chat_event(f" w{n}") for n in range(3)]
_NO_REASON = {"index": 0, "delta": {}, "finish_reason": None}


def test_a_count_in_the_last_event_alone_is_the_end_of_an_answer(serve: Serve, measured: Measured) -> None:
    """finish_reason null to the end, the usage beside the last choice, [DONE]."""
    found = _requests(_stream(_WORDS, {"completion_tokens": 3}, _NO_REASON), serve, measured)
    assert [(r.fault, r.output_tokens, r.counted_by) for r in found] == [(None, 3, "server")] * 3


@pytest.mark.parametrize("pieces", [1, 3])
def test_a_count_in_each_event_is_no_end_however_early_it_breaks_off(
    pieces: int, serve: Serve, measured: Measured
) -> None:
    def counted(n: int) -> str:
        choice = {"index": 0, "delta": {"content": " w"}, "finish_reason": None}
        return f"data: {json.dumps({'choices': [choice], 'usage': {'completion_tokens': n + 1}})}\n\n"

    play = _stream([chat_event(""), *map(counted, range(pieces))], None)
    record = measured(serve(play).url, requests=3, concurrency=(1,))
    assert record.fault is not None and record.fault.kind == "dropped"


def test_reasoning_tokens_beside_the_usage_are_hidden_ones(serve: Serve, measured: Measured) -> None:
    """SGLang has `reasoning_tokens` in the usage itself."""
    usage = {"completion_tokens": 40, "reasoning_tokens": 37}
    for request in _requests(_stream(_WORDS, usage), serve, measured, decode_tokens=40):
        assert request.hidden_tokens == 37
        assert time_per_output_token(request) == pytest.approx(
            (request.event_seconds[-1] - request.event_seconds[0]) / 2
        )


@pytest.mark.parametrize("details", [{"completion_tokens_details": {"reasoning_tokens": 37}}, {}])
def test_reasoning_that_the_total_alone_counts_is_not_taken_from_the_visible_tokens(
    details: dict[str, Any], serve: Serve, measured: Measured
) -> None:
    """Grok and Gemini count reasoning in total_tokens and not in completion_tokens."""

    async def play(request: Request, writer: asyncio.StreamWriter) -> None:
        chats = request.path == "/v1/chat/completions"
        total = {"total_tokens": tokens_of(request) + 40} if chats else {}
        await _stream(_WORDS, {"completion_tokens": 3, **total, **details})(request, writer)

    record = measured(serve(play).url, requests=3, concurrency=(1,))
    assert record.fault is None
    for request in record.levels[0].requests:
        assert (request.output_tokens, request.hidden_tokens, request.uncounted_tokens) == (3, 0, 37)
        assert time_per_output_token(request) == pytest.approx(
            (request.event_seconds[-1] - request.event_seconds[0]) / 2
        )
    assert any("counts in neither prompt nor output" in note for note in record.notes)


def test_more_tokens_than_single_words_are_not_explained_by_the_words(
    serve: Serve, measured: Measured
) -> None:
    """20 events of one word and 30 tokens: ten are hidden, or each event has one and a half."""
    words = [chat_event(f" w{n}") for n in range(20)]
    for request in _requests(_stream(words, {"completion_tokens": 30}), serve, measured, decode_tokens=32):
        assert request.hidden_tokens is None and time_per_output_token(request) is None


@pytest.mark.parametrize("decoded", [3, 1])
def test_a_servers_own_timings_are_kept_beside_the_clients(
    decoded: int, serve: Serve, measured: Measured
) -> None:
    """llama.cpp's, in its last event; of one token it makes a speed up."""
    timings = {"prompt_n": 30, "prompt_ms": 60.0, "prompt_per_second": 500.0, "predicted_n": decoded}
    timings |= {"predicted_ms": 40.0, "predicted_per_second": 50.0 if decoded > 1 else 1e6}

    async def play(request: Request, writer: asyncio.StreamWriter) -> None:
        await begin(writer)
        usage = {"prompt_tokens": tokens_of(request), "completion_tokens": decoded}
        last = {"choices": [], "usage": usage, "timings": timings}
        stop = chat_event(finish="length")
        await piece(writer, "".join(_WORDS[:decoded]) + stop + f"data: {json.dumps(last)}\n\n")
        await end(writer)

    for request in _requests(openai(play), serve, measured):
        assert (request.server_prompt_seconds, request.server_decode_seconds) == (0.06, 0.04)
        assert request.server_prompt_tokens_per_second == 500.0
        assert request.server_decode_tokens_per_second == (50.0 if decoded > 1 else None)


@pytest.mark.parametrize(
    "wrong", [None, [], {"prompt_ms": "x"}, {"prompt_ms": -1, "prompt_per_second": 1e300}]
)
def test_timings_of_another_shape_are_none(wrong: Any, serve: Serve, measured: Measured) -> None:
    async def play(request: Request, writer: asyncio.StreamWriter) -> None:
        await begin(writer)
        last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}], "timings": wrong}
        await piece(writer, "".join(_WORDS) + f"data: {json.dumps(last)}\n\n")
        await end(writer)

    for request in _requests(openai(play), serve, measured):
        assert (request.server_prompt_seconds, request.server_prompt_tokens_per_second) == (None, None)
