"""Parse events from a stream of bytes: server-sent events and JSON lines.

A decoder takes the stream piece by piece and returns the payloads that are complete. It raises Malformed for
another format, and holds at most one mebibyte and one piece."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

LONGEST_EVENT_BYTES = 2**20
DEEPEST = 64
"""Levels of nesting in JSON: a protocol's events have 6, and Python's own limit would be hit somewhere
later."""
DONE = "[DONE]"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Malformed(Exception):
    """What came is not the protocol; the message says what, in one line."""


class Lines:
    """Lines out of pieces of bytes."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> list[bytes]:
        """The lines that are whole now, without their ends. Raises Malformed for an endless one."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > LONGEST_EVENT_BYTES:
            raise Malformed(f"a line of more than {LONGEST_EVENT_BYTES:,} bytes")
        return [line.removesuffix(b"\r") for line in lines]

    @property
    def rest(self) -> bytes:
        """What came after the last line's end."""
        return self._rest


class ServerSentEvents:
    """`text/event-stream`, as the HTML standard defines it: the payload is JSON or `[DONE]`.

    What the standard ignores is ignored: a byte order mark at the beginning, comments, and fields that it
    does not know."""

    def __init__(self) -> None:
        self._lines, self._data = Lines(), list[bytes]()
        self._begun, self._held = False, 0

    def feed(self, piece: bytes) -> Iterator[Any]:
        """The payloads that are whole now."""
        for raw in self._lines.feed(piece):
            line = raw if self._begun else raw.removeprefix(_BYTE_ORDER_MARK)
            self._begun = True
            if not line:
                yield from self._dispatch()
                continue
            field, _, value = line.partition(b":")
            if field == b"data":
                self._data.append(value.removeprefix(b" "))
                self._held += len(raw)
                if self._held > LONGEST_EVENT_BYTES:
                    raise Malformed(f"an event of more than {LONGEST_EVENT_BYTES:,} bytes")

    def end(self) -> Iterator[Any]:
        """What the end of the stream makes whole: a last event that lacks its empty line, if it is all
        there."""
        yield from self.feed(b"\n") if self._lines.rest else ()
        try:
            yield from self._dispatch()
        except Malformed:  # the fault is that the stream was cut, and not its last half event
            return

    def _dispatch(self) -> Iterator[Any]:
        data, self._data, self._held = b"\n".join(self._data), [], 0
        if data:
            yield DONE if data.strip() == DONE.encode() else decode(data)


class JsonLines:
    """`application/x-ndjson`: one JSON object a line."""

    def __init__(self) -> None:
        self._lines = Lines()

    def feed(self, piece: bytes) -> Iterator[Any]:
        """The payloads that are whole now."""
        yield from (decode(line) for line in self._lines.feed(piece) if line.strip())

    def end(self) -> Iterator[Any]:
        """What the end of the stream makes whole: a last object without a line's end, if it is all there."""
        try:
            yield from [decode(self._lines.rest)] if self._lines.rest.strip() else []
        except Malformed:
            return


def decode(data: bytes) -> Any:
    """JSON of one payload. Raises Malformed for anything else, and for JSON that is nested more than 64
    levels deep."""
    try:
        content = json.loads(data)
    except ValueError:  # so do bytes outside UTF-8
        raise Malformed(f"a payload that cannot be read as JSON: {shown(data)}") from None
    except RecursionError:
        raise Malformed(_TOO_DEEP) from None
    if data.count(b"[") + data.count(b"{") > DEEPEST and _deeper(content, DEEPEST):
        raise Malformed(_TOO_DEEP)
    return content


_TOO_DEEP = f"JSON that is nested more than {DEEPEST} levels deep"


def _deeper(value: Any, levels: int) -> bool:
    """Whether a list or mapping lies below so many others."""
    level = [value]
    for _ in range(levels):
        holders = [outer for outer in level if isinstance(outer, dict | list)]
        level = [
            inner for outer in holders for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return any(isinstance(inner, dict | list) for inner in level)


def shown(data: bytes) -> str:
    """Some bytes in one line, whole: a message is cut only after the key has been masked in it."""
    return repr(data.decode("utf-8", "replace"))
