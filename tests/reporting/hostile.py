"""Records in which every text is an attack: made by walking the types of the records themselves, so that no
field is forgotten."""

from __future__ import annotations

import types
import typing
from collections.abc import Container
from pathlib import Path
from typing import Any

from madeup import MODEL, write_cell

from quantlab.frozen import Frozen
from quantlab.records import STAGES, SensitivityRecord
from quantlab.workspace.results import read_record, record_path, write_record

ATTACK = (
    "<script>alert(1)</script><img src=x onerror=alert(1)> ![i](http://evil.example/i.png)"
    " [c](javascript:alert(1)) ![r][r] <http://evil.example> \\![j](http://evil.example) `<b>` ` | \\| $x^2$"
    " \x1b[2J\x9b31m\u202e\n\n[r]: http://evil.example/r.png\n\n# evil heading\n```\n<b>\n"
)
_NAMES = ("model", "variant", "checkpoint_sha256")
"""What places a record: these are checked where it is read."""
_SETTINGS = "settings_sha256"
"""With any other value than the recipe's, the record is stale and nothing of it is shown: no text would be
tried."""


def hostile(record: Frozen) -> Any:
    """The same record with every text an attack; numbers that are there stay, and what is absent is there as
    well."""
    return type(record).model_validate(
        {
            name: _value(field.annotation, getattr(record, name), name)
            for name, field in type(record).model_fields.items()
        }
    )


def write_hostile_cell(root: Path, slug: str, without: Container[str] = ()) -> None:
    """Write a variant's records with every text an attack, but for those of some stages."""
    write_cell(root, slug)
    write_record(root, SensitivityRecord(model=MODEL, variant=slug))
    for stage, (_, kind, *_rest) in STAGES.items():
        record = read_record(record_path(root, MODEL, slug, stage), kind)
        assert record is not None
        if stage not in without:
            write_record(root, hostile(record))


def _value(kind: Any, there: Any, name: str = "") -> Any:
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if name == _SETTINGS:
        return there
    if name in _NAMES or origin is typing.Literal:
        return (
            there
            if there is not None
            else inside[0]
            if origin is typing.Literal
            else "baseline-16"
            if name == "variant"
            else "0" * 64
        )
    if origin in (types.UnionType, typing.Union):
        # What failed has no number, and a made-up failure would hide the others.
        keep = there is None and name == "failure"
        return None if keep else _value(next(one for one in inside if one is not type(None)), there)
    if origin is tuple:
        return tuple(_value(inside[0], one) for one in there or (None,))
    if origin is dict:
        entries = there or {_value(inside[0], None): None}
        return {key: _value(inside[1], one) for key, one in entries.items()}
    if isinstance(kind, type) and issubclass(kind, Frozen):
        if isinstance(there, Frozen):
            return hostile(there)
        return {
            n: _value(f.annotation, None if f.is_required() else f.default, n)
            for n, f in kind.model_fields.items()
        }
    return ATTACK if kind is str else there if there is not None else kind(1)
