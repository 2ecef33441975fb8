"""Figures of a candidate: a value, how it is known, and between which ends it lies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

Kind = Literal["measured", "interpolated", "estimated", "unknown"]
Outcome = Literal["met", "open", "failed"]


class Quantity(NamedTuple):
    """A figure, how it is known, and between which ends it lies."""

    value: float | None
    kind: Kind
    low: float | None = None
    """None: no lower end is known."""
    high: float | None = None
    """None: no upper end is known."""
    source: str = ""


UNKNOWN = Quantity(None, "unknown")


def exact(value: float, kind: Kind, source: str = "") -> Quantity:
    """A figure without an interval."""
    return Quantity(value, kind, value, value, source)


def unknown(why: str) -> Quantity:
    """A figure that is not known, and why."""
    return Quantity(None, "unknown", source=why)


def judge(found: Quantity, bound: float, at_most: bool) -> Outcome:
    """Whether a quantity keeps a bound, by its whole interval."""
    if found.value is None:
        return "open"
    low, high = (found.low, found.high) if at_most else (_minus(found.high), _minus(found.low))
    bound = bound if at_most else -bound
    if low is not None and low > bound:
        return "failed"
    return "met" if high is not None and high <= bound else "open"


def _minus(value: float | None) -> float | None:
    return None if value is None else -value


def quantity_text(found: Quantity, text: Callable[[float], str]) -> str:
    """A figure with its interval."""
    if found.value is None:
        return "not known"
    if found.low == found.high == found.value:
        return text(found.value)
    if found.low is None and found.high is None:
        return f"about {text(found.value)}"
    if found.high is None:
        return f"{text(found.low or 0.0)} or more"
    if found.low is None:
        return (
            f"about {text(found.value)}, at most {text(found.high)}"
            if found.value != found.high
            else f"at most {text(found.high)}"
        )
    return f"{text(found.low)} to {text(found.high)}"
