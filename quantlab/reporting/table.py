"""Build a table: rows of unrounded values for CSV and JSON, and their rounded text in markdown.

A value that is None has a reason in `Row.missing`; a reader sees a dash with the reason as a footnote.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pandas as pd

from quantlab.comparison.status import Failed
from quantlab.inert import Markdown, markdown

Value = str | int | float | bool | None
DASH = "—"
_SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass
class Row:
    """One row while it is made: values by key, and why those that are None are."""

    values: dict[str, Value] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """What a reader of this row must know; footnotes on its first cell."""
    failed: Failed | None = None
    """Set where the whole row has no number; stands where its first number would."""

    def put(self, key: str, value: Value, reason: str | None = None) -> None:
        """Set a value; `reason` is kept where it is None."""
        self.values[key] = value
        if value is None and reason:
            self.missing[key] = reason

    def fail(self, failed: Failed | None) -> None:
        """Say of the whole row that it has no number, for one reason."""
        self.failed = failed
        if failed:
            self.missing = dict.fromkeys(self.missing, failed.reason)


class Column(NamedTuple):
    """A column as a reader sees it."""

    header: str
    keys: tuple[str, ...]
    """The values it shows; where the first is None the cell is a dash."""
    render: Callable[..., str]
    """From the values, in the keys' order, to text; only the first is sure to be there."""


class Table(NamedTuple):
    """One table of the report."""

    name: str
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]

    def frame(self) -> pd.DataFrame:
        """All values, unrounded, one row per row; missing ones are NA."""
        return pd.DataFrame([row.values for row in self.rows]).convert_dtypes()

    def csv(self) -> str:
        """As CSV; a last column says why values are missing."""
        reasons = ["; ".join(dict.fromkeys(row.missing.values())) for row in self.rows]
        return str(self.frame().assign(not_measured=reasons).to_csv(index=False, lineterminator="\n"))

    def json(self) -> str:
        """As a JSON array; `not_measured` says why, value by value."""
        rows: list[dict[str, Any]] = [
            {**row.values, "not_measured": row.missing, "notes": row.notes} for row in self.rows
        ]
        return json.dumps(rows, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def markdown(self) -> Markdown:
        """As a GitHub table with its footnotes."""
        notes: dict[str, int] = {}
        lines = [_line(_plain(column.header) for column in self.columns)]
        lines.append(
            "|" + "|".join(":---" if column.render is str else "---:" for column in self.columns) + "|"
        )
        lines += [_line(_cells(row, self.columns, notes)) for row in self.rows]
        # Two blanks break the line in markdown, and the table stays one block with its notes below.
        below = (f"{_mark([n])} {_plain(text)}  " for text, n in notes.items())
        return Markdown("\n".join([*lines, "", *below]).rstrip() + "\n")


def _cells(row: Row, columns: tuple[Column, ...], notes: dict[str, int]) -> list[str]:
    cells: list[str] = []
    told = False
    for column in columns:
        values = [row.values.get(key) for key in column.keys]
        marks = [_number(note, notes) for note in row.notes] if not cells else []
        if row.failed and values[0] is None:
            # One mark for the row: a dozen of the same would hide the others.
            text = DASH if told else row.failed.kind
            marks += [] if told else [_number(row.failed.reason, notes)]
            told = True
        else:
            text = DASH if values[0] is None else column.render(*values)
            reasons = [
                row.missing[key]
                for key, value in zip(column.keys, values, strict=True)
                if value is None and key in row.missing
            ]
            marks += [_number(reason, notes) for reason in dict.fromkeys(reasons)]
        cells.append(_plain(text) + _mark(marks))
    return cells


def _number(note: str, notes: dict[str, int]) -> int:
    return notes.setdefault(note, len(notes) + 1)


def _mark(numbers: list[int]) -> str:
    return " ".join(str(n).translate(_SUPERSCRIPT) for n in numbers)


def _plain(text: str) -> str:
    return markdown(" ".join(text.split()))


def _line(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"
