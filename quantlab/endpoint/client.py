"""Send one streamed request, follow it to its end, and record whatever happens to it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from quantlab.endpoint import protocols
from quantlab.endpoint.address import Address, Path
from quantlab.endpoint.protocols import Ask
from quantlab.endpoint.reading import check_plain, said_in
from quantlab.endpoint.secrets import Key, headers, redact
from quantlab.endpoint.seen import Seen
from quantlab.endpoint.streams import Malformed
from quantlab.records.endpoint import Fault, FaultKind, RequestRecord

if TYPE_CHECKING:
    import aiohttp

LONGEST_MESSAGE = 200
_WAIT_SECONDS = 0.1
"""For the end of a stream after its last event: a connection whose answer was read to its end is used
again."""
_WAITS = 3
"""In vain, one after the other, after which a server is not waited for any more."""
_STREAM_BYTES, _BYTES_PER_TOKEN = 2**24, 2**12
"""The most that is read of a stream: events have 200 to 400 bytes, one token each."""


class Connection:
    """What is known of the connection that a request went over."""

    def __init__(self) -> None:
        self.reused = self.answered = False


class Client:
    """A session with one endpoint. Follows no redirect, heeds no proxy of the environment, keeps no
    cookie."""

    def __init__(self, address: Address, path: Path, key: Key | None, timeout_seconds: float) -> None:
        self.address, self.path, self.key, self.timeout_seconds = address, path, key, timeout_seconds
        self.session: aiohttp.ClientSession
        self.closes = False
        """Whether the server ended a connection that it had promised to keep, so that each request makes its
        own."""
        self.server_header: str | None = None
        self._in_vain = 0
        self._old: list[aiohttp.ClientSession] = []

    @property
    def gave_up_waiting(self) -> bool:
        """Whether the server leaves its streams open, so that each request makes a connection of its own."""
        return self._in_vain >= _WAITS

    async def __aenter__(self) -> Client:
        self.session = self._open()
        return self

    def _open(self) -> aiohttp.ClientSession:
        import aiohttp

        async def reused(session: Any, context: Any, params: Any) -> None:
            if isinstance(context.trace_request_ctx, Connection):
                context.trace_request_ctx.reused = True

        trace = aiohttp.TraceConfig()
        trace.on_connection_reuseconn.append(reused)
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=self.closes),
            timeout=aiohttp.ClientTimeout(total=None),  # one clock for a whole request, in `send`
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=headers(self.key, bool(self.address.query)),
            auto_decompress=False,  # see reading.check_plain
            trace_configs=[trace],
        )

    async def __aexit__(self, *_: object) -> None:
        for session in (*self._old, self.session):  # requests may be under way over an old one until then
            await session.close()

    async def send(self, ask: Ask, began: float) -> RequestRecord:
        """Send a request and follow its stream; `began` is the perf_counter time that its record counts
        from."""
        while True:
            sent, connection = time.perf_counter(), Connection()
            seen = Seen(sent)
            try:
                async with asyncio.timeout(self.timeout_seconds) as clock:
                    fault = await self._follow(ask, seen, clock, connection)
            except TimeoutError:
                fault = Fault(
                    kind="timeout", message=f"not finished after {self.timeout_seconds:g} s, {seen.stage}"
                )
            except Malformed as error:
                fault = self.fault("malformed", str(error))
            except Exception as error:
                if self.ended_too_early(error, connection):
                    continue
                fault = self.fault(*of_library(error, seen.stage))
            return seen.record(sent - began, fault, ask)

    def ended_too_early(self, error: Exception, connection: Connection) -> bool:
        """Whether a request is to be sent again: it went over a kept connection, which ended before any
        answer.

        HTTP lets a server close a kept connection at any time (RFC 9112, 9.3.1: such a request may be
        repeated), and llama.cpp's does after every stream. From then on each request makes a connection of
        its own."""
        import aiohttp

        ended = isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError | ConnectionError)
        if not ended or not connection.reused or connection.answered:
            return False
        if not self.closes:
            self.closes, old = True, self.session
            self.session = self._open()
            self._old.append(old)
        return True

    async def _follow(
        self, ask: Ask, seen: Seen, clock: asyncio.Timeout, connection: Connection
    ) -> Fault | None:
        body, url = protocols.body(self.path, ask), self.address.url(self.path)
        async with self.session.post(
            url, json=body, allow_redirects=False, trace_request_ctx=connection
        ) as response:
            seen.stage, connection.answered = "answering", True
            if response.status != 200:
                return await self.refusal(response)
            check_plain(response)
            if response.content_type == "application/json" and not self.path.startswith("api/"):
                return await self._unstreamed(response)
            decoder, read = protocols.decoder(self.path), 0
            async for piece in response.content.iter_any():
                now, read = time.perf_counter(), read + len(piece)
                _check_size(read, ask)
                for payload in decoder.feed(piece):
                    event = protocols.read(self.path, payload)
                    if event.error:
                        return self.fault("error_in_stream", event.error, response.status)
                    seen.add(event, now)
                    _check_count(seen.payloads, ask)
                    if event.done:
                        seen.over = now
                        clock.reschedule(None)  # the answer is whole, whatever comes after it
                        await self._end(response)
                        return seen.missing(ask)
            for payload in decoder.end():
                event = protocols.read(self.path, payload)
                if event.error:
                    return self.fault("error_in_stream", event.error, response.status)
                seen.add(event, time.perf_counter())
            return seen.missing(ask)

    async def _end(self, response: aiohttp.ClientResponse) -> None:
        """Read to the end of the stream, so that the connection, whose set-up takes time, serves the next
        request."""
        import aiohttp

        if self.gave_up_waiting:
            return
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                while await response.content.readany():
                    pass
            self._in_vain = 0
        except TimeoutError:
            self._in_vain += 1
        except (aiohttp.ClientError, OSError):  # the connection ended: there is nothing to keep
            return

    async def _unstreamed(self, response: aiohttp.ClientResponse) -> Fault:
        """A whole JSON body where a stream was asked for: an error, or a server that cannot stream."""
        content = await said_in(response)
        if isinstance(content, dict) and content.get("error"):
            return self.fault("error_in_stream", protocols.message_of(content), response.status)
        return self.fault("malformed", "one JSON object where a stream was asked for", response.status)

    async def refusal(self, response: aiohttp.ClientResponse) -> Fault:
        """The fault of an answer whose status is not 200, with what the server says of it."""
        status = response.status
        if 300 <= status < 400:
            return self.fault("redirected", "it sends requests to another address; name that one", status)
        said = protocols.message_of(await said_in(response))
        kinds: dict[int, FaultKind] = {
            401: "unauthorized",
            403: "unauthorized",
            404: "not_found",
            429: "rate_limited",
        }
        kind = kinds.get(
            status, "rejected" if 400 <= status < 500 else "server_error" if status >= 500 else "malformed"
        )
        return self.fault(kind, said or response.reason or "no reason given", status)

    def fault(self, kind: FaultKind, message: str, status: int | None = None) -> Fault:
        """A fault with its message in one printable line, the key masked in it before it is cut."""
        return Fault(kind=kind, message=self.line(message)[:LONGEST_MESSAGE], status=status)

    def line(self, text: str) -> str:
        """Text of the server's in one printable line, the key masked in it."""
        masked: str = redact(" ".join("".join(c if c.isprintable() else " " for c in text).split()), self.key)
        return masked


def _check_size(read_bytes: int, ask: Ask) -> None:
    """Raise Malformed for a stream that is far larger than the tokens asked for."""
    most = _STREAM_BYTES + _BYTES_PER_TOKEN * ask.tokens
    if read_bytes > most:
        raise Malformed(f"a stream of more than {most:,} bytes for {ask.tokens:,} tokens")


def _check_count(events: int, ask: Ask) -> None:
    """Raise Malformed for far more events than the tokens asked for."""
    if events > 16 * ask.tokens + 1024:
        raise Malformed(f"{events:,} events for {ask.tokens:,} tokens: the server does not heed the limit")


def of_library(error: Exception, stage: str) -> tuple[FaultKind, str]:
    """The kind and the words of an exception of aiohttp's; anything else is raised again.

    Its own text is left out but for a failed connection's: it repeats bytes of the server's, cut anywhere, so
    that half a key could not be recognised in it."""
    import aiohttp

    what = type(error).__name__
    if isinstance(error, aiohttp.ClientConnectorError):
        return "unreachable", str(error)
    if isinstance(
        error, aiohttp.ClientPayloadError | aiohttp.ServerDisconnectedError | aiohttp.ClientOSError | OSError
    ):
        return "dropped", f"the connection ended early, {stage} ({what})"
    if isinstance(error, aiohttp.ClientError):
        return (
            "malformed",
            f"an answer that cannot be read as HTTP, or whose head has a line above 8,190 bytes ({what})",
        )
    raise error
