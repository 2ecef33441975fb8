"""Whole requests to a server, one after the other: for tasks and for asking what it offers."""

from __future__ import annotations

from typing import Any

from quantlab.endpoint import protocols
from quantlab.endpoint.request import LONGEST_MESSAGE
from quantlab.endpoint.secrets import Key, headers, redact
from quantlab.errors import CellFailure


def post(url: str, body: dict[str, Any], key: Key | None, timeout_seconds: float) -> dict[str, Any]:
    """The JSON object that answers a POST. Follows no redirect and heeds no proxy or password file of the environment.

    Raises CellFailure for anything else, with what the server said, the key masked in it.
    """
    import requests

    try:
        with requests.Session() as session:
            session.trust_env = False
            answer = session.post(url, json=body, headers=headers(key), timeout=timeout_seconds, allow_redirects=False)
            found = answer.json() if answer.status_code == 200 else _json_or(answer.text, answer)
    except (requests.RequestException, ValueError) as error:
        raise CellFailure("not_measured", _line(f"{type(error).__name__}: {error}", key)) from None
    if answer.status_code != 200 or not isinstance(found, dict) or found.get("error"):
        raise CellFailure("not_measured", _line(f"the server answered {answer.status_code}: {protocols.message_of(found)}", key))
    return found


def _json_or(text: str, answer: Any) -> Any:
    try:
        return answer.json()
    except ValueError:
        return text


def _line(text: str, key: Key | None) -> str:
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    masked: str = redact(plain, key)
    return masked[:LONGEST_MESSAGE]
