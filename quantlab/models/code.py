"""Find code in a model's folder by what its JSON files name, and refuse it unless the user trusts it.

Two keys lead from a configuration to code: `auto_map` (a class in a Python file of the folder or, written
`org/name--file.Class`, of another repository), and an attention or expert kernel written `org/name`, which
transformers fetches from the hub and runs. Both count at any depth, since configurations nest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from quantlab.errors import QuantlabError
from quantlab.formats.json_file import parse_json, read_json

KERNEL_KEYS = (
    "attn_implementation",
    "_attn_implementation",
    "experts_implementation",
    "_experts_implementation",
)
CODE_KEYS = ("auto_map", "custom_pipelines", *KERNEL_KEYS)
DATA_ONLY = ("tokenizer.json", "vocab.json", "merges.json", "added_tokens.json", "special_tokens_map.json")
"""Large files in which no library looks for code."""


def check_code(folder: Path, where: str, trust_remote_code: bool = False) -> None:
    """Raise QuantlabError where a JSON file of the folder names code that could be had.

    An `auto_map` to a file that is not in the folder leads nowhere: releases keep it after transformers has
    the model."""
    if trust_remote_code:
        return
    for path in json_files(folder):
        for key, name in named_code(read_json(path)):
            if key in KERNEL_KEYS or "--" in name or (folder / _file(name)).exists():
                raise QuantlabError(
                    f"{where} would run code that is not quantlab's or transformers': {path.name} names"
                    f" {name} ({key}); read that code, then add --trust-remote-code, or take {key} out of a"
                    f" copy of {path.name}"
                )


def json_files(folder: Path) -> list[Path]:
    """The folder's JSON files in which a library could look for code."""
    return [
        p
        for p in sorted(folder.glob("*.json"))
        if p.name not in DATA_ONLY and not p.name.endswith(".index.json") and p.is_file()
    ]


def named_code(value: Any) -> Iterator[tuple[str, str]]:
    """Every key that leads to code, with each name of code under it."""
    for inner in _nested(value):
        if isinstance(inner, dict):
            for key in CODE_KEYS:
                names = (name for name in _nested(inner.get(key)) if isinstance(name, str))
                yield from ((key, name) for name in names if key not in KERNEL_KEYS or "/" in name)


def without_code(text: bytes) -> Any | None:
    """What a JSON file holds without the keys that lead to code; None where it names none. Raises
    ValueError."""
    value = parse_json(text)
    if not any(named_code(value)):
        return None
    for inner in _nested(value):
        if isinstance(inner, dict):
            for key in CODE_KEYS:
                inner.pop(key, None)
    return value


def _nested(value: Any) -> Iterator[Any]:
    """A JSON value and every value inside it, without recursion; what is taken out meanwhile is not
    visited."""
    waiting = [value]
    while waiting:
        inner = waiting.pop()
        yield inner
        waiting += inner.values() if isinstance(inner, dict) else inner if isinstance(inner, list) else ()


def _file(name: str) -> str:
    """The Python file of `file.Class`."""
    return f"{name.rpartition('.')[0] or name}.py"
