"""Read an endpoint's key, decide where it may be sent, and keep it out of everything that is written."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import quote

from quantlab.endpoint.address import Address
from quantlab.errors import QuantlabError

DEFAULT_VARIABLE = "OPENAI_API_KEY"
_SHORTEST = 8
_MASK = "[key]"


@dataclass(frozen=True)
class Key:
    """A bearer key that never shows itself: its text form is without it."""

    value: str = field(repr=False)


class Sent(NamedTuple):
    """The key that goes with the requests, and what a reader of the result must know of it."""

    key: Key | None
    note: str | None = None


def read_key(address: Address, variable: str | None, insecure: bool) -> Sent:
    """The key in an environment variable (the default one where none is named), if it may go to this address.

    A key goes over https, or to this machine itself. Raises QuantlabError where a named variable is empty,
    holds what cannot be a key, or would go over plain http to another machine."""
    name = variable or DEFAULT_VARIABLE
    value = os.environ.get(name, "").strip()
    if not value:
        if variable:  # which is not repeated: somebody may have put the key itself there
            raise QuantlabError(
                "the environment variable that --key-env names is empty: put the key into it, or leave"
                " --key-env out"
            )
        return Sent(None)
    if not re.fullmatch(r"[\x21\x23-\x5b\x5d-\x7e]+", value):
        raise QuantlabError(
            f"{name} holds characters that no key has (spaces, quotes, backslashes or such): set it again"
        )
    if address.secure or is_loopback(address.host) or insecure:
        return Sent(Key(value))
    if variable:
        raise QuantlabError(
            f"the key in {name} would go over plain http to {address.host}, readable on the way: use https,"
            " or allow it with --insecure-key"
        )
    return Sent(None, f"The key in {name} was not sent, because the address is plain http.")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by its name alone, without asking a resolver."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def headers(key: Key | None, versioned: bool = False) -> dict[str, str]:
    """What goes with every request; `versioned`: the address has an api-version, and Azure takes the key as
    `api-key`."""
    own = {"Authorization": f"Bearer {key.value}"} if key else {}
    return {"Accept-Encoding": "identity"} | own | ({"api-key": key.value} if key and versioned else {})


def redact(value: Any, key: Key | None) -> Any:
    """The same value with the key masked in every text of it, in mappings and lists too.

    A server can send back what it was sent, as it is or as JSON or a URL writes it, so this goes over all
    that is written. Keys of fewer than 8 characters are placeholders such as EMPTY, which some servers ask
    for, and no secrets."""
    if key is None or len(key.value) < _SHORTEST:
        return value
    if isinstance(value, str):
        for form in (key.value, key.value.replace("/", "\\/"), quote(key.value, safe="")):
            value = value.replace(form, _MASK)
        return value
    if isinstance(value, Mapping):
        return {redact(k, key): redact(v, key) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [redact(v, key) for v in value]
    return value
