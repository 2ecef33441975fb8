"""The address of a server: what a user may write, and the paths below it."""

from __future__ import annotations

from typing import Literal, NamedTuple
from urllib.parse import SplitResult, urlsplit

from quantlab.errors import QuantlabError

Api = Literal["openai", "ollama"]
Path = Literal["chat/completions", "completions", "api/chat", "api/generate"]
_NAMED: dict[Path, Api] = {"chat/completions": "openai", "completions": "openai", "api/chat": "ollama", "api/generate": "ollama"}


class Address(NamedTuple):
    """A server's address, taken apart."""

    origin: str
    """Scheme, host and port, such as `http://127.0.0.1:8000`."""
    prefix: str
    """The path before the API's own, without `/v1`: '' or such as `/proxy`."""
    host: str
    path: Path | None
    """The endpoint that the user named; None where it is ours to choose."""
    versioned: bool = False
    """Whether the user named /v1, and so OpenAI's API."""

    @property
    def secure(self) -> bool:
        return self.origin.startswith("https:")

    @property
    def api(self) -> Api | None:
        """The protocol that the named endpoint, or a /v1, belongs to."""
        return _NAMED[self.path] if self.path else "openai" if self.versioned else None

    def url(self, path: str) -> str:
        """The URL of an endpoint: OpenAI's lie under /v1, Ollama's under /api."""
        version = "" if path.startswith("api/") else "/v1"
        return f"{self.origin}{self.prefix}{version}/{path}"


def parse(text: str) -> Address:
    """Take an address apart: a server's root, its /v1, or one of its endpoints.

    Raises QuantlabError for anything but http and https, for credentials in the address, and for a query or fragment.
    The message never repeats what stands before an @ or after a ?, since that may be a secret.
    """
    example = "such as http://127.0.0.1:8000 or https://host/v1"
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError:
        raise QuantlabError(f"the address is no URL that can be read: write one {example}") from None
    if "@" in parts.netloc:
        raise QuantlabError("the address has credentials in it, which would end up in files: put the key into a variable, see --key-env")
    if parts.scheme not in ("http", "https"):
        raise QuantlabError(f"the address begins with {_begins(parts, text)!r}, only http and https are known: write one {example}")
    if parts.query or parts.fragment or "?" in text or "#" in text:
        raise QuantlabError(
            "the address has a query or a fragment, which may be a secret: leave it out, a key goes into --key-env's variable"
        )
    if not parts.hostname or any(c.isspace() or not c.isprintable() for c in text.strip()) or "\\" in text:
        raise QuantlabError(f"the address names no host: write one {example}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    origin = f"{parts.scheme}://{host}" + (f":{port}" if port is not None else "")
    rest = parts.path.rstrip("/")
    named: Path | None = next((path for path in _NAMED if rest.endswith(f"/{path}")), None)
    if named:
        rest = rest.removesuffix(f"/{named}")
    return Address(origin, rest.removesuffix("/v1"), host, named, rest.endswith("/v1"))


def _begins(parts: SplitResult, text: str) -> str:
    return f"{parts.scheme}:" if "://" in text else text.strip()[:12].partition("@")[0]
