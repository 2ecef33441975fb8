"""Format numbers for a reader: rounding, units, uncertainty. Values in CSV and JSON are never rounded."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple


class ByteUnit(NamedTuple):
    """The unit that a report writes bytes in."""

    name: str
    bytes: int

    def text(self, value: float) -> str:
        """A number of bytes in this unit, without the unit's name."""
        scaled = value / self.bytes
        return fixed(scaled, 0 if scaled >= 1000 else 1 if scaled >= 10 else 2)


MEGABYTE = ByteUnit("MB", 10**6)
GIGABYTE = ByteUnit("GB", 10**9)


def unit_for(sizes: Iterable[float]) -> ByteUnit:
    """GB where the largest size is 10 GB or more, else MB."""
    return GIGABYTE if max(sizes, default=0) >= 10 * GIGABYTE.bytes else MEGABYTE


def fixed(value: float, decimals: int) -> str:
    """With so many decimals, thousands separated, and no minus sign before a zero."""
    rounded = round(value, decimals)
    return f"{rounded + 0.0:,.{decimals}f}" if rounded else f"{0.0:.{decimals}f}"


def significant(value: float, digits: int = 3) -> str:
    """With so many significant digits; below 0.0001 with an exponent."""
    if value == 0:
        return "0"
    if abs(value) < 1e-4:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    rounded = float(f"{value:.{digits - 1}e}")
    return fixed(rounded, max(0, digits - 1 - math.floor(math.log10(abs(rounded)))))


def divergence(value: float, standard_error: float | None) -> str:
    """A divergence with three significant digits, its standard error with two."""
    return significant(value) + (f" ± {significant(standard_error, 2)}" if standard_error is not None else "")


def perplexity(value: float) -> str:
    """Two decimals below 100, one below 1,000."""
    return fixed(value, 2 if value < 100 else 1 if value < 1000 else 0)


def points(value: float, standard_error: float | None = None) -> str:
    """Percentage points with one decimal, two where the standard error is so small that they carry."""
    if value == 0 and standard_error == 0:
        return "0.0 (no change)"  # "± 0.0" would read as certainty
    decimals = 2 if standard_error is not None and 0 < standard_error < 0.3 else 1
    return fixed(value, decimals) + (
        f" ± {fixed(standard_error, decimals)}" if standard_error is not None else ""
    )


def interval_text(points: float, lower: float | None, upper: float | None) -> str:
    """A drop in points with its 95 % interval."""
    return fixed(points, 1) + (
        f" [{fixed(lower, 1)}, {fixed(upper, 1)}]" if lower is not None and upper is not None else ""
    )


def percent(share: float) -> str:
    """A share as a percentage with one decimal."""
    return f"{fixed(100 * share, 1)} %"


def ratio(value: float) -> str:
    """A factor with two decimals."""
    return f"{fixed(value, 2)}×"


def beside(
    first: Callable[[Any], str], second: Callable[[Any], str], value: float, compared: float | None
) -> str:
    """A figure with what it is relative to another in brackets, where that is known."""
    return first(value) + (f" ({second(compared)})" if compared is not None else "")


def listing(words: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    items = list(words)
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else "none"
