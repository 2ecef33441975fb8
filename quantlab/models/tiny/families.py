"""Read the table of families: each one's proportions, and why a family has no tiny model."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from quantlab.errors import unknown

_FOLDER = Path(__file__).parent
_ABOUT = ("release", "kind", "tokenizer", "special", "renamed", "unavailable")
"""Keys of an entry that are no fields of the configuration."""
_TABLES = ("dense", "experts", "hybrids", "multimodal")


class Family(NamedTuple):
    """What a tiny model is made of."""

    name: str
    release: str
    """The release whose proportions it has."""
    kind: str
    """transformers' model_type."""
    fields: Mapping[str, Any]
    """Of its configuration; a wrapper's language part stands in `text_config`."""
    pieces: bool
    """Whether its tokenizer is SentencePiece's."""
    special: tuple[str, ...]
    """Special tokens that its tokenizer must have."""
    renamed: Mapping[str, str]
    """Parts of tensors' names that transformers writes in another way than the release."""
    unavailable: str | None
    """Why no tiny model of it can be built here, None where one can."""

    @property
    def multimodal(self) -> bool:
        """Whether it is a wrapper around a language model and a tower."""
        return "text_config" in self.fields


@functools.cache
def families() -> Mapping[str, Family]:
    """All families by name."""
    return {name: _family(name) for name in _entries()}


def family(name: str) -> Family:
    """One family. Raises QuantlabError with the known ones for another name."""
    if name not in families():
        raise unknown("family", name, families(), "name one of them")
    return families()[name]


@functools.cache
def _entries() -> dict[str, dict[str, Any]]:
    return {name: entry for table in _TABLES for name, entry in _read(table).items()}


def _read(table: str) -> dict[str, Any]:
    rows: dict[str, Any] = yaml.safe_load((_FOLDER / f"{table}.yaml").read_text(encoding="utf-8"))
    return rows


def _family(name: str) -> Family:
    entry = dict(_entries()[name])
    said = {key: entry.pop(key, None) for key in _ABOUT}
    text = entry.pop("text", None)
    if text:
        inner = _text_fields(dict(_entries()[text])) | entry.pop("text_overrides", {})
        inner["model_type"] = entry.pop("text_type", text)
        tied = inner.pop("tie_word_embeddings")
        inner["tie_word_embeddings"] = entry.setdefault("tie_word_embeddings", tied)
        entry["text_config"] = inner
    fields = entry if text else _text_fields(entry)
    pieces = (said["tokenizer"] or _entries().get(text or "", {}).get("tokenizer")) == "pieces"
    special, renamed = tuple(said["special"] or ()), said["renamed"] or {}
    return Family(
        name, said["release"], said["kind"] or name, fields, pieces, special, renamed, said["unavailable"]
    )


def _text_fields(entry: dict[str, Any]) -> dict[str, Any]:
    """A language model's fields: the common ones, the family's own over them, in the family's spelling."""
    for key in _ABOUT:
        entry.pop(key, None)
    left_out, spelled = entry.pop("leave_out", ()), entry.pop("spelled", {})
    common = _read("common")
    if types := entry.get("layer_types"):
        common["num_hidden_layers"] = len(types)
    return {spelled.get(key, key): value for key, value in (common | entry).items() if key not in left_out}
