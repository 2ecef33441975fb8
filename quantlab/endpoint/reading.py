"""Read a server's answers within limits: no decompression, bounded size, bounded depth of JSON.

HTTP's own head is limited by aiohttp (8,190 bytes a line, 128 headers), a stream's lines and events by
`streams.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quantlab.endpoint.streams import Malformed, decode

if TYPE_CHECKING:
    import aiohttp

ANSWER_BYTES = 2**24
"""Of a JSON answer: log-probabilities of 100,000 prompt tokens, or the longest list of models that is known,
ten times."""
BEGINNING_BYTES = 2**16
"""Of the body of a refusal: enough that a message cut to 200 characters holds no half of a key."""


def check_plain(response: aiohttp.ClientResponse) -> None:
    """Raise Malformed for a compressed body: every request says that it takes none, and a small one may
    unpack to any size."""
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise Malformed("a compressed body, which was not asked for (Accept-Encoding was identity)")


async def json_of(response: aiohttp.ClientResponse) -> Any:
    """The JSON of a whole body. Raises Malformed for a longer one than ANSWER_BYTES, and for what is no
    JSON."""
    check_plain(response)
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > ANSWER_BYTES:
            raise Malformed(f"an answer of more than {ANSWER_BYTES:,} bytes: it was read no further")
    return decode(bytes(body))


async def said_in(response: aiohttp.ClientResponse) -> Any:
    """The beginning of a refusal's body, as JSON where it is JSON, else as text."""
    try:
        check_plain(response)
    except Malformed as error:
        return str(error)
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > BEGINNING_BYTES:
            break
    try:
        return decode(bytes(body))
    except Malformed:
        return bytes(body[:BEGINNING_BYTES]).decode("utf-8", "replace")
