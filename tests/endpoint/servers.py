"""Servers of these tests, on the loopback: each plays a script, byte for byte, and remembers what it was
sent."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

ITEMS = 6
"""Of the task that is asked through them."""


class Request(NamedTuple):
    """What a client sent."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Play = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """One HTTP/1.1 server in a thread; every connection carries one request, or with `keep` as many as the
    client sends."""

    def __init__(self, play: Play, keep: bool = False) -> None:
        self._play, self.seen = play, list[Request]()
        self._keep, self.connections = keep, 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop
        ).result()
        self.port = self._server.sockets[0].getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self._answer(reader, writer)
            while self._keep:
                await self._answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.split("\r\n")
        headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines if line)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        method, path, _ = first.split(" ")
        self.seen.append(Request(method, path, headers, body))
        await self._play(self.seen[-1], writer)

    async def _stop(self) -> None:
        self._server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0)

    def close(self) -> None:
        """Stop listening and end every connection; a second call does nothing."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(5)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(5)


async def answer(
    writer: asyncio.StreamWriter,
    body: bytes | str,
    status: int = 200,
    kind: str = "application/json",
    more: str = "",
) -> None:
    """A whole answer."""
    data = body.encode() if isinstance(body, str) else body
    writer.write(
        f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n{more}Connection:"
        " close\r\n\r\n".encode()
    )
    writer.write(data)
    await writer.drain()


async def begin(writer: asyncio.StreamWriter, kind: str = "text/event-stream", keep: bool = False) -> None:
    """The head of a chunked answer."""
    more = "" if keep else "Connection: close\r\n"
    writer.write(
        f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n{more}\r\n".encode()
    )
    await writer.drain()


async def piece(writer: asyncio.StreamWriter, data: bytes | str) -> None:
    """One chunk of it."""
    data = data.encode() if isinstance(data, str) else data
    writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
    await writer.drain()


async def end(writer: asyncio.StreamWriter) -> None:
    """Its end as HTTP has it."""
    writer.write(b"0\r\n\r\n")
    await writer.drain()


def chat_event(
    text: str | None = None, finish: str | None = None, usage: dict[str, int] | None = None
) -> str:
    """An event of OpenAI's chat stream."""
    delta = {} if text is None else {"content": text} if text else {"role": "assistant", "content": ""}
    choices = [] if usage else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return f"data: {json.dumps({'object': 'chat.completion.chunk', 'choices': choices, 'usage': usage})}\n\n"


MODELS = json.dumps({"object": "list", "data": [{"id": "tiny", "object": "model"}]})


def openai(play: Play) -> Play:
    """A server that lists one model and has no Ollama API; chats are played."""

    async def serve(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.path == "/v1/models":
            await answer(writer, MODELS)
        elif request.path.startswith("/v1/chat/completions"):
            await play(request, writer)
        else:
            await answer(writer, '{"detail": "Not Found"}', 404)

    return serve


def tokens_of(request: Request) -> int:
    """How many tokens this kind of server counts in a prompt: one a word, and seven for the template."""
    return 7 + len(request.json["messages"][0]["content"].split())


async def good_chat(request: Request, writer: asyncio.StreamWriter, seconds: float = 0.0) -> None:
    """A good answer of as many tokens as asked for, one an event, with usage."""
    if not request.json["stream"]:
        await answer(
            writer,
            json.dumps(
                {"choices": [{"message": {"content": "w"}}], "usage": {"prompt_tokens": tokens_of(request)}}
            ),
        )
        return
    await begin(writer)
    await piece(writer, chat_event(""))
    for n in range(request.json["max_tokens"]):
        await piece(writer, chat_event(f" w{n}"))
        if seconds:
            await asyncio.sleep(seconds)
    await piece(writer, chat_event(finish="length"))
    count = request.json["max_tokens"]
    await piece(
        writer,
        chat_event(
            usage={"prompt_tokens": tokens_of(request), "completion_tokens": count, "total_tokens": count}
        ),
    )
    await piece(writer, "data: [DONE]\n\n")
    await end(writer)


def counted(play: Play, seconds: float = 0.0) -> tuple[Play, list[int]]:
    """The same script, and how many of its requests are under way at each one's start; it waits so long before
    it answers."""
    under_way, counts = 0, list[int]()

    async def counting(request: Request, writer: asyncio.StreamWriter) -> None:
        nonlocal under_way
        under_way += 1
        counts.append(under_way)
        await asyncio.sleep(seconds)
        await play(request, writer)
        under_way -= 1

    return counting, counts
