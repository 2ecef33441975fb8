"""JSON files of a model's folder, which somebody else wrote: read within a limit, and never by a crash."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from quantlab.errors import QuantlabError

MAX_BYTES = 2**30
"""The largest tokenizer.json known has 0.04 GB; an index of a thousand billion parameters has 0.02 GB."""


def parse_json(text: str | bytes) -> Any:
    """The value. Raises ValueError for all that is no JSON, nesting beyond what Python can follow among it."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_json(path: Path) -> Any:
    """The value that a file holds. Raises QuantlabError where it cannot be read or is no JSON."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise QuantlabError(f"{path} has {path.stat().st_size:,} bytes, too many for a file of that kind: download or save it again")
        return parse_json(path.read_bytes())
    except OSError as error:
        raise QuantlabError(f"{path} cannot be read: {error.strerror or error}; download or save it again") from None
    except ValueError as error:
        raise QuantlabError(f"{path} is not JSON: {' '.join(str(error).split())[:160]}; download or save it again") from None


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object that a file holds. Raises QuantlabError."""
    found = read_json(path)
    if not isinstance(found, dict):
        raise QuantlabError(f"{path} is no JSON object; download or save it again")
    return found
