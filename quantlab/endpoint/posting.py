"""Send whole requests answered by one JSON object, for tasks and for discovery."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from quantlab.endpoint import protocols
from quantlab.endpoint.client import LONGEST_MESSAGE, of_library
from quantlab.endpoint.reading import json_of, said_in
from quantlab.endpoint.secrets import Key, headers, redact
from quantlab.endpoint.streams import Malformed
from quantlab.errors import CellFailure

if TYPE_CHECKING:
    import aiohttp


_PASSING = (408, 425, 429, 500, 502, 503, 504)


class Passing(CellFailure):
    """What may be otherwise a moment later."""

    def __init__(self, reason: str, retry_after_seconds: float | None = None) -> None:
        super().__init__("not_measured", reason)
        self.retry_after_seconds = retry_after_seconds
        """What the server asks to wait (Retry-After); None where it does not say."""


class TimedOut(CellFailure):
    """No whole answer within the time that one may take."""

    def __init__(self, timeout_seconds: float) -> None:
        super().__init__("not_measured", f"no whole answer after {timeout_seconds:g} s")


def post(url: str, body: dict[str, Any], key: Key | None, timeout_seconds: float) -> dict[str, Any]:
    """The JSON object that answers one POST; see `exchange`."""

    async def one() -> dict[str, Any]:
        async with open_session(key, url) as session:
            return await exchange(session, url, body, key, timeout_seconds)

    return asyncio.run(one())


def open_session(key: Key | None, url: str) -> aiohttp.ClientSession:
    """A session that heeds no proxy or password file of the environment, keeps no cookie and decompresses
    nothing."""
    import aiohttp

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=0, force_close=True
        ),  # a connection that dies between items costs no item
        timeout=aiohttp.ClientTimeout(total=None),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=headers(key, "?api-version=" in url),
        auto_decompress=False,
    )


async def exchange(
    session: aiohttp.ClientSession, url: str, body: dict[str, Any], key: Key | None, timeout_seconds: float
) -> dict[str, Any]:
    """The JSON object that answers a POST, within the time from its first to its last byte. Follows no
    redirect.

    Raises CellFailure for anything else, with what the server said, the key masked in it; Passing for what
    may pass, TimedOut."""
    import aiohttp

    try:
        async with (
            asyncio.timeout(timeout_seconds),
            session.post(url, json=body, allow_redirects=False) as answer,
        ):
            content = await (json_of(answer) if answer.status == 200 else said_in(answer))
    except TimeoutError:
        raise TimedOut(timeout_seconds) from None
    except Malformed as error:
        raise CellFailure("not_measured", _line(f"the server's answer is malformed: {error}", key)) from None
    except (aiohttp.ClientError, OSError) as error:
        kind, said = of_library(error, "no answer yet")
        line = _line(f"{kind}: {said}", key)
        raise (CellFailure("not_measured", line) if kind == "malformed" else Passing(line)) from None
    if answer.status == 200 and isinstance(content, dict) and not content.get("error"):
        return content
    line = _line(f"the server answered {answer.status}: {protocols.message_of(content)}", key)
    if answer.status in _PASSING:
        raise Passing(line, retry_after(answer.headers.get("Retry-After")))
    raise CellFailure("not_measured", line)


def retry_after(header: str | None) -> float | None:
    """Seconds to wait by a Retry-After header, which is a number of them or a date (RFC 9110, 10.2.3); None
    without one."""
    text = (header or "").strip()
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _line(text: str, key: Key | None) -> str:
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    masked: str = redact(plain, key)
    return masked[:LONGEST_MESSAGE]
