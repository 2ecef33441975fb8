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


def judge(quantity: Quantity, bound: float, at_most: bool) -> Outcome:
    """Whether a quantity keeps a bound, by its whole interval."""
    if quantity.value is None:
        return "open"
    low, high = (quantity.low, quantity.high) if at_most else (_minus(quantity.high), _minus(quantity.low))
    bound = bound if at_most else -bound
    if low is not None and low > bound:
        return "failed"
    return "met" if high is not None and high <= bound else "open"


def _minus(value: float | None) -> float | None:
    return None if value is None else -value


def quantity_text(quantity: Quantity, text: Callable[[float], str]) -> str:
    """A figure with its interval."""
    if quantity.value is None:
        return "not known"
    if quantity.low == quantity.high == quantity.value:
        return text(quantity.value)
    if quantity.low is None and quantity.high is None:
        return f"about {text(quantity.value)}"
    if quantity.high is None:
        return f"{text(quantity.low or 0.0)} or more"
    if quantity.low is None:
        return (
            f"about {text(quantity.value)}, at most {text(quantity.high)}"
            if quantity.value != quantity.high
            else f"at most {text(quantity.high)}"
        )
    return f"{text(quantity.low)} to {text(quantity.high)}"
