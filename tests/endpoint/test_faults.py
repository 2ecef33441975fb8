"""Each fault of a server is one outcome with its name, and with what was seen until then."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest
from servers import Play, Request, Server, answer, begin, chat_event, end, good_chat, openai, piece

from quantlab.records.endpoint import EndpointRecord

Serve = Callable[[Play], Server]
Measured = Callable[..., EndpointRecord]


async def _three(writer: asyncio.StreamWriter) -> None:
    await begin(writer)
    for n in range(3):
        await piece(writer, chat_event(f" w{n}"))


async def _drop(request: Request, writer: asyncio.StreamWriter) -> None:
    await _three(writer)
    writer.transport.abort()


async def _cut(request: Request, writer: asyncio.StreamWriter) -> None:
    await _three(writer)
    await piece(writer, 'data: {"choices": [{"delta": {"con')
    await end(writer)


async def _interrupted(request: Request, writer: asyncio.StreamWriter) -> None:
    await _three(writer)
    await piece(writer, "data: [DONE]\n\n")
    await end(writer)


async def _not_json(request: Request, writer: asyncio.StreamWriter) -> None:
    await _three(writer)
    await piece(writer, "data: {not json}\n\n")


async def _not_events(request: Request, writer: asyncio.StreamWriter) -> None:
    await _three(writer)
    await piece(writer, "<html>an error page</html>\n\n")


async def _not_choices(request: Request, writer: asyncio.StreamWriter) -> None:
    await _three(writer)
    await piece(writer, 'data: {"choices": 7}\n\n')


async def _not_utf8(request: Request, writer: asyncio.StreamWriter) -> None:
    await _three(writer)
    await piece(writer, b'data: {"choices": "\xff"}\n\n')


async def _error(request: Request, writer: asyncio.StreamWriter) -> None:
    await _three(writer)
    await piece(writer, 'data: {"error": {"message": "CUDA out\\nof memory", "code": 500}}\n\n')
    await piece(writer, "data: [DONE]\n\n")


async def _slow(request: Request, writer: asyncio.StreamWriter) -> None:
    await _three(writer)
    await asyncio.sleep(30)


async def _endless(request: Request, writer: asyncio.StreamWriter) -> None:
    await begin(writer)
    while True:
        await piece(writer, chat_event(" w") * 100)


async def _empty(request: Request, writer: asyncio.StreamWriter) -> None:
    await begin(writer)
    await piece(writer, chat_event("") + chat_event(finish="stop") + "data: [DONE]\n\n")
    await end(writer)


async def _unstreamed(request: Request, writer: asyncio.StreamWriter) -> None:
    await answer(writer, '{"choices": [{"message": {"content": "hello"}}]}')


IN_STREAM = [
    (_drop, "dropped", "after 3 events", 3),
    (_cut, "dropped", "before the answer did, after 3 events", 3),
    (_interrupted, "dropped", "broke the answer off, after 3 events", 3),
    (_not_json, "malformed", "cannot be read as JSON", 3),
    (_not_events, "dropped", "ended early, after 3 events", 3),
    (_not_choices, "malformed", "another shape", 3),
    (_not_utf8, "malformed", "cannot be read as JSON", 3),
    (_error, "error_in_stream", "CUDA out of memory", 3),
    (_slow, "timeout", "not finished after 0.5 s, after 3 events", 3),
    (_endless, "malformed", "does not heed the limit", None),
    (_empty, "empty", "without any text", 0),
    (_unstreamed, "malformed", "one JSON object where a stream", 0),
]


@pytest.mark.parametrize(
    ("play", "kind", "said", "tokens"), IN_STREAM, ids=[p.__name__ for p, *_ in IN_STREAM]
)
def test_a_fault_in_a_stream_ends_one_request_and_its_tokens_are_counted_as_lost(
    play: Play, kind: str, said: str, tokens: int | None, serve: Serve, measured: Measured
) -> None:
    """The first 4 requests are good (try-out, sizing, warm-up, one that counts), every other one after that
    is not."""
    count = iter(range(1000))

    async def mixed(request: Request, writer: asyncio.StreamWriter) -> None:
        n = next(count)
        await (play if n > 3 and n % 2 == 0 else good_chat)(request, writer)

    record = measured(serve(openai(mixed)).url, concurrency=(1,), timeout_seconds=0.5)
    level = record.levels[0]
    assert record.fault is None and len(level.requests) == 6
    bad = [r for r in level.requests if r.fault]
    assert level.summary.faults == {kind: 3} and level.summary.good == 3
    assert all(
        r.fault and r.fault.kind == kind and said in r.fault.message and "\n" not in r.fault.message
        for r in bad
    )
    if tokens is not None:
        assert [len(r.event_seconds) for r in bad] == [tokens] * 3
        assert level.summary.lost_tokens == 3 * tokens
    assert level.summary.output_tokens == 3 * 8
    assert level.summary.output_tokens_per_second == pytest.approx(3 * 8 / level.summary.duration_seconds)
    assert level.summary.latency is not None and level.summary.latency.n == 3


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "rejected"),
        (401, "unauthorized"),
        (403, "unauthorized"),
        (404, "not_found"),
        (429, "rate_limited"),
        (500, "server_error"),
        (503, "server_error"),
    ],
)
def test_a_refusal_is_named_by_its_status_with_the_servers_words(
    status: int, kind: str, serve: Serve, measured: Measured
) -> None:
    async def refuse(request: Request, writer: asyncio.StreamWriter) -> None:
        await answer(writer, json.dumps({"error": {"message": "no, because"}}), status)

    record = measured(serve(openai(refuse)).url)
    assert record.levels == () and record.fault is not None
    assert (record.fault.kind, record.fault.status, record.fault.message) == (kind, status, "no, because")
    assert record.model == "tiny"


def test_a_rate_limit_at_a_higher_concurrency_leaves_the_lower_ones_figures(
    serve: Serve, measured: Measured
) -> None:
    under_way = 0

    async def limited(request: Request, writer: asyncio.StreamWriter) -> None:
        nonlocal under_way
        under_way += 1
        try:
            if under_way > 1:
                await answer(writer, '{"error": {"message": "slow down"}}', 429)
            else:
                await good_chat(request, writer, 0.005)
        finally:
            under_way -= 1

    record = measured(serve(openai(limited)).url, concurrency=(1, 4), requests=8)
    assert record.levels[0].summary.good == 8 and record.levels[0].summary.faults == {}
    assert record.levels[1].summary.faults["rate_limited"] >= 1
    assert record.levels[1].summary.good + record.levels[1].summary.faults["rate_limited"] == len(
        record.levels[1].requests
    )


def test_nobody_listens(serve: Serve, measured: Measured) -> None:
    server = serve(openai(good_chat))
    server.close()
    record = measured(server.url)
    assert record.fault is not None and record.fault.kind == "unreachable" and record.levels == ()


def test_a_server_that_dies_is_not_asked_for_ever(serve: Serve, measured: Measured) -> None:
    count = iter(range(1000))

    async def dying(request: Request, writer: asyncio.StreamWriter) -> None:
        if next(count) > 1:
            writer.transport.abort()
        else:
            await good_chat(request, writer)

    record = measured(serve(openai(dying)).url, requests=30, concurrency=(1, 2))
    assert len(record.levels) == 1 and len(record.levels[0].requests) == 2
    assert record.levels[0].stopped == "stopped after 2 of 30 requests: none was answered well"
    assert record.levels[0].summary.output_tokens_per_second is None
    assert any("Concurrency 2 was not measured" in note for note in record.notes)


def test_a_redirect_is_not_followed_and_the_key_stays(serve: Serve, measured: Measured) -> None:
    other = serve(openai(good_chat))

    async def redirect(request: Request, writer: asyncio.StreamWriter) -> None:
        await answer(writer, "", 307, more=f"Location: {other.url}{request.path}\r\n")

    record = measured(serve(openai(redirect)).url, key="sk-123456789", model="tiny")
    assert record.fault is not None and (record.fault.kind, record.fault.status) == ("redirected", 307)
    assert other.seen == []


@pytest.mark.parametrize("path", ["/api/version", "/v1/models", "/v1/chat/completions"])
def test_a_server_that_takes_the_connection_and_says_nothing(
    path: str, serve: Serve, measured: Measured
) -> None:
    async def hang(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.path == path:
            await asyncio.sleep(30)
        await openai(good_chat)(request, writer)

    record = measured(serve(hang).url, timeout_seconds=0.3)
    assert record.fault is not None and record.fault.kind == "timeout" and record.levels == ()


def test_a_name_that_there_is_not(measured: Measured) -> None:
    record = measured("http://no-such-host.invalid:8000")
    assert record.fault is not None and record.fault.kind == "unreachable"
