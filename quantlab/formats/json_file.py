"""Read JSON files of a model's folder within a size limit, as leniently as the libraries that read them
later.

quantlab.parsing refuses an infinity and a key that stands twice; releases have both (Mamba's
`time_step_limit`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from quantlab.errors import QuantlabError
from quantlab.parsing import read_bytes

MOST_BYTES = 2**28
"""The largest tokenizer.json known has 0.04 GB, the largest index 0.01 GB."""


def parse_json(text: str | bytes) -> Any:
    """The value. Raises ValueError for text that is not JSON, nesting beyond what Python can follow among
    it."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_json(path: Path) -> Any:
    """The value that a file holds. Raises QuantlabError where it cannot be read or is not JSON."""
    content = read_bytes(path, MOST_BYTES)
    try:
        return parse_json(content)
    except ValueError as error:
        raise QuantlabError(
            f"{path} is not JSON: {' '.join(str(error).split())[:160]}; download or save it again"
        ) from None


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object that a file holds. Raises QuantlabError."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise QuantlabError(f"{path} does not hold a JSON object; download or save it again")
    return value
