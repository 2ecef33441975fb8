"""Every read of a server's answer has a limit, and what is beyond it is one line."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable

import pytest
from servers import MODELS, Play, Request, Server, answer, begin, good_chat, openai, piece

from quantlab.endpoint.posting import post
from quantlab.endpoint.secrets import Key
from quantlab.endpoint.streams import DEEPEST, LONGEST_EVENT_BYTES, Malformed, ServerSentEvents, decode
from quantlab.errors import CellFailure
from quantlab.records.endpoint import EndpointRecord

Serve = Callable[[Play], Server]
Measured = Callable[..., EndpointRecord]
MEBIBYTE = b" " * 2**20
DEEP = b"[" * 100_000
BOMB = gzip.compress(b"[" + MEBIBYTE * 64 + b"]")
KEY = "sk-0123456789abcdef"


class Pours:
    """An answer without an end; it counts what it could send."""

    def __init__(self, status: int = 200, kind: str = "application/json", data: bytes = MEBIBYTE) -> None:
        self.status, self.kind, self.data, self.sent = status, kind, data, 0

    async def __call__(self, request: Request, writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 {self.status} X\r\nContent-Type: {self.kind}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode())
        while not writer.is_closing():
            writer.write(self.data)
            await writer.drain()
            self.sent += len(self.data)


def _only(path: str, play: Play) -> Play:
    async def serve(request: Request, writer: asyncio.StreamWriter) -> None:
        await (play if request.path == path else openai(good_chat))(request, writer)

    return serve


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("path", ["/api/version", "/v1/models", "/v1/chat/completions"])
def test_an_endless_answer_is_read_no_further_than_its_limit(
    path: str, status: int, serve: Serve, measured: Measured
) -> None:
    pours = Pours(status)
    record = measured(serve(_only(path, pours)).url, requests=1, concurrency=(1,))
    assert 0 < pours.sent < 2 * 28 * 2**20
    if path == "/v1/models":
        said = "more than 16,777,216 bytes" if status == 200 else ""
        assert record.fault is not None and said in record.fault.message


@pytest.mark.parametrize(
    "data",
    [b": comment\n\n" * 1000, b"data:\n" * 1000, b"data: {}" * 1000, b'data: {"choices": []}\n\n' * 1000],
)
def test_an_endless_stream_is_read_no_further_than_its_limit(
    data: bytes, serve: Serve, measured: Measured
) -> None:
    pours = Pours(kind="text/event-stream", data=data)
    record = measured(serve(openai(pours)).url)
    assert record.fault is not None and record.fault.kind == "malformed"
    assert " bytes" in record.fault.message or "does not heed the limit" in record.fault.message
    assert 0 < pours.sent < 2 * 28 * 2**20


@pytest.mark.parametrize("status", [200, 429])
def test_an_endless_answer_to_a_post(status: int, serve: Serve) -> None:
    pours = Pours(status)
    with pytest.raises(CellFailure, match="more than 16,777,216 bytes" if status == 200 else "answered 429"):
        post(serve(pours).url, {}, None, 20)
    assert pours.sent < 28 * 2**20


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("path", ["/v1/models", "/v1/chat/completions"])
def test_a_compressed_body_is_not_unpacked(path: str, status: int, serve: Serve, measured: Measured) -> None:
    async def bomb(request: Request, writer: asyncio.StreamWriter) -> None:
        await answer(writer, BOMB, status, more="Content-Encoding: gzip\r\n")

    record = measured(serve(_only(path, bomb)).url)
    assert record.fault is not None and "a compressed body, which was not asked for" in record.fault.message
    with pytest.raises(CellFailure, match="a compressed body"):
        post(serve(bomb).url, {}, None, 5)


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("path", ["/api/version", "/v1/models", "/v1/chat/completions"])
def test_deep_nesting_is_one_line(path: str, status: int, serve: Serve, measured: Measured) -> None:
    async def deep(request: Request, writer: asyncio.StreamWriter) -> None:
        await answer(writer, DEEP, status)

    record = measured(serve(_only(path, deep)).url)
    if path == "/v1/models":
        assert (
            record.fault is not None and "\n" not in record.fault.message and len(record.fault.message) <= 200
        )
    with pytest.raises(
        CellFailure, match="nested more than 64" if status == 200 else r"answered 500: \[\["
    ) as failure:
        post(serve(deep).url, {}, None, 5)
    assert "\n" not in failure.value.reason and len(failure.value.reason) <= 200


@pytest.mark.parametrize("payload", [DEEP, b"[" * 70 + b"]" * 70, b'{"a":' * 70 + b"1" + b"}" * 70])
def test_a_deeply_nested_event_is_one_line(payload: bytes, serve: Serve, measured: Measured) -> None:
    async def deep(request: Request, writer: asyncio.StreamWriter) -> None:
        await begin(writer)
        await piece(writer, b'data: {"choices": ' + payload + b"}\n\n")

    record = measured(serve(openai(deep)).url)
    assert record.fault is not None and record.fault.kind == "malformed"
    assert (
        record.fault.message in (f"JSON that is nested more than {DEEPEST} levels deep",)
        or "cannot be read as JSON" in record.fault.message
    )


def test_json_of_the_greatest_depth_is_read() -> None:
    assert decode(b"[" * DEEPEST + b"]" * DEEPEST) is not None
    with pytest.raises(Malformed, match="nested more than"):
        decode(b"[" * (DEEPEST + 1) + b"]" * (DEEPEST + 1))
    assert len(decode(json.dumps([[1]] * 1000).encode())) == 1000  # many brackets, and not deep


def test_an_event_of_many_empty_lines_has_a_limit_too() -> None:
    decoder = ServerSentEvents()
    with pytest.raises(Malformed, match="an event of more than"):
        for _ in range(LONGEST_EVENT_BYTES // 5000 + 1):
            list(decoder.feed(b"data:\n" * 1000))


@pytest.mark.parametrize("where", ["/v1/models", "/v1/chat/completions"])
def test_a_key_in_a_head_that_is_too_long_is_not_shown_in_part(
    where: str, serve: Serve, measured: Measured
) -> None:
    """aiohttp's own message has the first 100 bytes of the line: half a key, which no mask recognises."""

    async def long_head(request: Request, writer: asyncio.StreamWriter) -> None:
        said = request.headers["authorization"]
        line = "X" * (100 - len("Bearer sk-0123456")) + said + "y" * 9000
        writer.write(f"HTTP/1.1 200 OK\r\nX-Echo: {line}\r\n\r\n".encode())
        writer.write(b"HTTP/1.1 " + said.encode() + b"\r\n\r\n")
        await writer.drain()

    async def broken_chunk(request: Request, writer: asyncio.StreamWriter) -> None:
        await begin(writer)
        writer.write(request.headers["authorization"][:16].encode() + b"\r\n")
        await writer.drain()

    for play in (long_head, broken_chunk):
        record = measured(serve(_only(where, play)).url, key=KEY)
        assert record.fault is not None and "0123" not in record.model_dump_json()
        with pytest.raises(CellFailure) as failure:
            post(serve(play).url, {}, Key(KEY), 5)
        assert "0123" not in failure.value.reason


def test_a_key_as_json_or_a_url_writes_it_is_masked(serve: Serve) -> None:
    async def echo(request: Request, writer: asyncio.StreamWriter) -> None:
        await answer(writer, r"no: sk-01\/23+45678 and sk-01%2F23%2B45678 and sk-01/23+45678", 401)

    with pytest.raises(CellFailure) as failure:
        post(serve(echo).url, {}, Key("sk-01/23+45678"), 5)
    assert failure.value.reason == "the server answered 401: no: [key] and [key] and [key]"


def test_a_query_goes_with_every_request(serve: Serve, measured: Measured) -> None:
    async def versioned(request: Request, writer: asyncio.StreamWriter) -> None:
        path, _, query = request.path.partition("?")
        if query != "api-version=2024-10-21":
            await answer(writer, '{"error": "no api-version"}', 400)
        elif path == "/v1/models":
            await answer(writer, MODELS)
        else:
            await good_chat(request, writer)

    server = serve(versioned)
    record = measured(server.url + "/v1?api-version=2024-10-21")
    assert record.fault is None and record.levels[0].summary.good == 6
    assert all(r.path.endswith("?api-version=2024-10-21") for r in server.seen)


def test_a_base_of_another_version_is_kept(serve: Serve, measured: Measured) -> None:
    async def gemini(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.path == "/v1beta/openai/models":
            await answer(writer, MODELS)
        elif request.path == "/v1beta/openai/chat/completions":
            await good_chat(request, writer)
        else:
            await answer(writer, "{}", 404)

    record = measured(serve(gemini).url + "/v1beta/openai")
    assert record.fault is None and record.levels[0].summary.good == 6
