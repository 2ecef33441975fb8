"""Read JSON with the standard library, refuse what it lets through, and find the line."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from quantlab.errors import QuantlabError
from quantlab.parsing._text import DEEPEST, LONGEST_NUMBER, TEXT_BYTES, read_text, refused, trouble_with_text

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},:]|[^\s\[\]{},:"]+')


class _RefusedJson(Exception):
    """What a hook of the parser refuses; it does not know where it stands."""


def read_json(path: Path, most_bytes: int = TEXT_BYTES) -> Any:
    """A JSON file's value. Raises QuantlabError."""
    return parse_json(read_text(path, most_bytes), str(path))


def read_object(path: Path, most_bytes: int = TEXT_BYTES) -> dict[str, Any]:
    """A JSON file's object. Raises QuantlabError, also where it is another value."""
    return parse_object(read_text(path, most_bytes), str(path))


def parse_object(text: str | bytes, origin: str) -> dict[str, Any]:
    """The same of a text."""
    value = parse_json(text, origin)
    if not isinstance(value, dict):
        raise QuantlabError(
            f"{origin} holds no JSON object, it begins with {_start(value)}: write {{...}}, or make it again"
        )
    return value


def parse_json(text: str | bytes, origin: str) -> Any:
    """The value of a JSON text. Raises QuantlabError that names the origin and the line."""
    if isinstance(text, bytes):
        from quantlab.parsing._text import decode

        text = decode(text, origin)
    if not text.strip():
        raise QuantlabError(f"{origin} is empty, where JSON belongs: write it again")
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_float, parse_int=_integer
        )
    except json.JSONDecodeError as error:
        raise refused(
            origin, error.lineno, f"it is not JSON: {error.msg.lower()}", "mend it, or make it again"
        ) from None
    except _RefusedJson as error:
        raise refused(origin, _line_of_refused(text), str(error), "mend it, or make it again") from None
    except RecursionError:
        raise _too_deep(text, origin) from None
    if _depth(value) > DEEPEST:
        raise _too_deep(text, origin)
    if "\\u" in text and (trouble := _trouble(value)):
        raise refused(origin, None, f"it holds {trouble}", "take it out")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _RefusedJson(f"the key {twice!r:.80} stands twice in one object")
    return members


def _constant(name: str) -> Any:
    raise _RefusedJson(f"JSON has no {name}")


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise _RefusedJson(f"{text:.40} is too large a number")
    return number


def _integer(text: str) -> int:
    if len(text) > LONGEST_NUMBER:
        raise _RefusedJson(f"a number of {len(text)} digits is too large")
    return int(text)


def _containers(value: Any) -> list[Any]:
    return [
        inner
        for inner in (value.values() if isinstance(value, dict) else value)
        if isinstance(inner, dict | list)
    ]


def _depth(value: Any) -> int:
    """Levels of objects and lists, counted level by level."""
    level, depth = [value] if isinstance(value, dict | list) else [], 0
    while level and depth <= DEEPEST:
        level, depth = [inner for outer in level for inner in _containers(outer)], depth + 1
    return depth


def _trouble(value: Any) -> str | None:
    """What no text may hold, in the keys and values of a value that is not too deep."""
    if isinstance(value, str):
        return trouble_with_text(value)
    inner = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((trouble for each in inner if (trouble := _trouble(each))), None)


def _too_deep(text: str, origin: str) -> QuantlabError:
    depth, line = 0, None
    for token, at in _tokens(text):
        depth += (token in ("[", "{")) - (token in ("]", "}"))
        if depth > DEEPEST:
            line = text.count("\n", 0, at) + 1
            break
    return refused(
        origin,
        line,
        f"lists and objects stand more than {DEEPEST} deep in one another, which no such file has",
    )


def _tokens(text: str) -> Iterator[tuple[str, int]]:
    return ((match[0], match.start()) for match in _TOKEN.finditer(text))


def _line_of_refused(text: str) -> int | None:
    """The line of the first repeated key or refused number, by the text alone."""
    open_keys: list[set[str] | None] = []
    before, last, last_at = "", "", 0
    for token, at in _tokens(text):
        if token in "[{":
            open_keys.append(set() if token == "{" else None)
        elif token in "]}" and open_keys:
            open_keys.pop()
        elif token == ":" and open_keys and (keys := open_keys[-1]) is not None and before in ("{", ","):
            key = json.loads(last) if last.startswith('"') else last
            if key in keys:
                return text.count("\n", 0, last_at) + 1
            keys.add(key)
        elif token[0] not in '"[]{},:' and _is_refused(token):
            return text.count("\n", 0, at) + 1
        before, last, last_at = last, token, at
    return None


def _is_refused(token: str) -> bool:
    if token in ("NaN", "Infinity", "-Infinity"):
        return True
    try:
        return len(token) > LONGEST_NUMBER if token.lstrip("-").isdigit() else not math.isfinite(float(token))
    except ValueError:
        return False


def _start(value: Any) -> str:
    return f"{json.dumps(value)[:20]}" if value is None or isinstance(value, str | int | float) else "a list"
