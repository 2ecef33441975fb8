"""Parse the address of a server, and build the paths below it."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from quantlab.errors import QuantlabError

Api = Literal["openai", "ollama"]
Path = Literal["chat/completions", "completions", "api/chat", "api/generate"]
_NAMED: dict[Path, Api] = {
    "chat/completions": "openai",
    "completions": "openai",
    "api/chat": "ollama",
    "api/generate": "ollama",
}
_EXAMPLE = "write one such as http://127.0.0.1:8000 or https://host/v1"
_VERSION = re.compile(r"/v\d+(?:alpha|beta)?\d*(?=/|$)")
_DEPLOYMENT = re.compile(r"/openai/deployments/([A-Za-z0-9._-]+)$")
"""Azure's way: the model is in the path, and no version is."""
_QUERY = re.compile(r"api-version=((?:\d{4}-\d\d-\d\d(?:-[a-z]{1,12})?)|preview|latest|v\d{1,2})")
"""Azure's versions. The pattern is so narrow that a key never matches it."""


class Address(NamedTuple):
    """A server's address, taken apart. Nothing in it is a secret: `parse` lets none in."""

    origin: str
    """Scheme, host and port, such as `http://127.0.0.1:8000`."""
    prefix: str
    """The path before the API's own, without a last `/v1`: '' or such as `/proxy`."""
    host: str
    path: Path | None
    """The endpoint that the user named; None where quantlab chooses it."""
    base: str | None = None
    """What OpenAI's endpoints lie under where the user named a version, such as `/v1` or `/v1beta/openai`, or
    one of the endpoints."""
    query: str = ""
    """`api-version=...`, which goes with every request, or ''."""
    slash: str = ""
    """`/` where the endpoint that the user named ends with one."""

    @property
    def secure(self) -> bool:
        return self.origin.startswith("https:")

    @property
    def api(self) -> Api | None:
        """The protocol that the named endpoint, or a version such as /v1, belongs to."""
        return _NAMED[self.path] if self.path else None if self.base is None else "openai"

    @property
    def deployment(self) -> str | None:
        """The model that Azure's path names."""
        named = _DEPLOYMENT.search(self.base or "")
        return named[1] if named else None

    def url(self, path: str) -> str:
        """The URL of an endpoint: OpenAI's lie under /v1 or what the user named instead, Ollama's under
        /api. The one that the user named is called as it was given."""
        own = path.startswith("api/")
        before = self.prefix if own else f"{self.prefix}/v1" if self.base is None else self.base
        last = self.slash if path == self.path else ""
        return f"{self.origin}{before}/{path}{last}" + (f"?{self.query}" if self.query else "")

    def root(self, path: str) -> str:
        """The URL of what lies beside the API, such as vLLM's /version."""
        return f"{self.origin}{self.prefix}/{path}" + (f"?{self.query}" if self.query else "")


def parse(text: str) -> Address:
    """Take an address apart: a server's root, its /v1, or one of its endpoints.

    Raises QuantlabError for anything but http and https, for credentials, for a fragment, and for a query
    other than `api-version`. No message repeats any part of the address, since that may be a secret."""
    text = text.strip()
    if "@" in text or "%40" in text:
        raise QuantlabError(
            "the address has an @, so credentials, which would end up in files: put the key into a variable,"
            " see --key-env"
        )
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise QuantlabError(f"the address cannot be read as a URL: {_EXAMPLE}") from None
    if parts.scheme not in ("http", "https") or not text.lower().startswith(f"{parts.scheme}://"):
        raise QuantlabError(
            f"the address does not begin with http:// or https://, only http and https are known: {_EXAMPLE}"
        )
    if parts.fragment or "#" in text or ("?" in text and not _QUERY.fullmatch(parts.query)):
        raise QuantlabError(
            "the address has a query or a fragment, which may be a secret: leave it out"
            " (api-version=2024-10-21 and the like are taken); a key goes into --key-env's variable"
        )
    if (
        not parts.hostname
        or not re.fullmatch(r"[^\s\\;=&]+", text.partition("?")[0])
        or not text.isprintable()
    ):
        raise QuantlabError(f"the address names no host, or has characters that no address has: {_EXAMPLE}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    origin = f"{parts.scheme}://{host}" + (f":{port}" if port is not None else "")
    return _address(origin, host, parts.path, parts.query)


def _address(origin: str, host: str, path: str, query: str) -> Address:
    rest = path.rstrip("/")
    named: Path | None = next((each for each in _NAMED if rest.endswith(f"/{each}")), None)
    if named:
        rest = rest.removesuffix(f"/{named}")
    full = named is not None and _NAMED[named] == "openai"
    based = full or _VERSION.search(rest) or _DEPLOYMENT.search(rest)
    slash = "/" if named and path.endswith("/") else ""
    return Address(origin, rest.removesuffix("/v1"), host, named, rest if based else None, query, slash)
