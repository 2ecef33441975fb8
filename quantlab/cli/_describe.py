"""Format settings, a manifest or a record as lines for a person: one `name  value` per line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

DECIMALS = 4


def lines(value: Mapping[str, Any], indent: str = "  ", none: str | None = None) -> Iterator[str]:
    """Format a JSON mapping as lines, with units from the ends of the names. Empty values are left out; so is
    None, unless `none` is the text for it."""
    for name, inner in value.items():
        text = none if inner is None else _text(name, inner)
        if text is not None:
            yield f"{indent}{name.replace('_', ' '):<34} {text}"
        elif isinstance(inner, Mapping) and inner:
            yield f"{indent}{name.replace('_', ' ')}"
            yield from lines(inner, indent + "  ")
        elif isinstance(inner, list) and inner:
            yield f"{indent}{name.replace('_', ' ')}"
            for number, item in enumerate(inner, 1):
                yield from lines({str(number): item}, indent + "  ")


def _text(name: str, value: Any) -> str | None:
    """Format a value on one line; None where it needs several lines or is left out."""
    if isinstance(value, Mapping):
        return _estimate(value) if {"value", "standard_error", "n"} == set(value) else None
    if isinstance(value, list):
        return (
            ", ".join(number(item) for item in value)
            if value and all(isinstance(item, int | float) for item in value)
            else None
        )
    if value == "":
        return None
    if isinstance(value, int) and name.endswith("bytes"):
        return f"{value / 1e6:,.1f} MB"
    return number(value)


def _estimate(value: Mapping[str, Any]) -> str:
    error = f" ± {number(value['standard_error'])}" if value["standard_error"] is not None else ""
    return f"{number(value['value'])}{error} (n = {value['n']})"


def number(value: Any) -> str:
    """Format a number with its significant digits, anything else as it is."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.{DECIMALS}g}" if isinstance(value, float) and abs(value) < 10**DECIMALS else str(value)
