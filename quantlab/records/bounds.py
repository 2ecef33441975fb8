"""Check numbers of a record against the bounds of their units: far wider than any machine's, and narrow
enough that whatever is computed from them stays finite.

A record of somebody else may claim anything. One with 10^400 bytes or 10^308 seconds is refused where it is
read, before a report divides, squares or draws it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel

_LONGEST_TEXT = 100_000
_MOST_ENTRIES = 1_000_000
_SMALLEST_SECONDS, _MOST_SECONDS = 1e-9, 1e9
"""A nanosecond, the clock's own step, and thirty years."""
_WHOLE = (0, 10**15)
_SIZE = (1, 10**16)
"""Of what is there at all: savings are divided by it."""
_TIMED = (_SMALLEST_SECONDS, _MOST_SECONDS)
_ONE_OR_MORE = (1, 10**9)
_SHARE = (0, 1)
_EXACT: dict[str, tuple[float, float]] = {
    "prefill_seconds": _TIMED,
    "decode_seconds": _TIMED,
    "baseline_prefill_seconds": _TIMED,
    "baseline_decode_seconds": _TIMED,
    "SpeedPoint.batch": _ONE_OR_MORE,
    "SpeedPoint.prompt_tokens": _ONE_OR_MORE,
    "SpeedPoint.decode_tokens": _ONE_OR_MORE,
    "log_perplexity_ratio": (-1e6, 1e6),
    "perplexity": (1e-6, 1e100),
    "reference_perplexity": (1e-6, 1e100),
    "metrics": (-1e100, 1e100),
    "dollars_per_million_tokens": (0, 1e12),
    "temperature_celsius": (-273, 1e4),
    "bits_per_weight": (1e-6, 1e4),
    "quantized_bits_per_weight": (1e-6, 1e4),
    "parameters": (1, 10**15),
    "Unquantized.weights": (1, 10**15),
    "by_kind": _WHOLE,
    "changed_token_share": _SHARE,
    "replaced_expert_share": _SHARE,
    "changed_token_share_by_block": _SHARE,
    "RoutingChanges.experts": _ONE_OR_MORE,
    "RoutingChanges.experts_per_token": _ONE_OR_MORE,
    "disk_bytes": _SIZE,
    "stored_bytes": _SIZE,
    "weights_bytes": _SIZE,
    "empty_process_rss_bytes": _SIZE,
    "loaded_process_rss_bytes": _SIZE,
    "peak_process_rss_bytes": _SIZE,
    "measured_bytes_per_second": (1, 1e16),
}
"""By class and field, or by field."""
_UNITS: tuple[tuple[str, tuple[float, float]], ...] = (
    ("bytes_per_second", (0, 1e16)),
    ("bytes", (0, 10**16)),
    ("tokens_per_second", (0, 1e8)),
    ("requests_per_second", (0, 1e9)),
    ("rate", (0, 1e12)),
    ("ratio", (0, 1e9)),
    ("seconds", (0, _MOST_SECONDS)),
    ("nats", (-1e6, 1e6)),
    ("joules_per_token", (0, 1e9)),
    ("hour", (0, 1e9)),
    ("mhz", (0, 10**6)),
    ("watts", (0, 1e7)),
    ("tokens", _WHOLE),
    ("error", (0, 1e100)),
)
"""By the end of the field's name, the first that fits."""
_ANY = (-1e18, 1e18)
_PARTS = ("value", "low", "high")
"""Fields without a unit of their own: they have that of what they are part of."""


def impossible(value: BaseModel) -> str | None:
    """The first number or text of a record that cannot be, with its place; None where all can."""
    return next(_wrong(value, "", ""), None)


def _wrong(value: Any, unit: str, place: str) -> Iterator[str]:
    if isinstance(value, BaseModel):
        for name, inner in value:
            its = unit if unit and name in _PARTS else "error" if name == "standard_error" else name
            exact = f"{type(value).__name__}.{name}"
            yield from _wrong(inner, exact if exact in _EXACT else its, f"{place}.{name}" if place else name)
    elif isinstance(value, dict):
        yield from _wrong_entries(value.items(), len(value), unit, place)
    elif isinstance(value, tuple | list):
        yield from _wrong_entries(enumerate(value), len(value), unit, place)
    elif isinstance(value, str) and len(value) > _LONGEST_TEXT:
        yield f"{place} has {len(value):,} characters, which no record has"
    elif isinstance(value, int | float) and not isinstance(value, bool):
        low, high = _bounds(unit)
        if not low <= value <= high:
            yield f"{place} is {_short(value)}, which cannot be: from {low:g} to {high:g} can"


def _wrong_entries(entries: Iterable[tuple[Any, Any]], count: int, unit: str, place: str) -> Iterator[str]:
    if count > _MOST_ENTRIES:
        yield f"{place} has {count:,} entries, which no record has"
        return
    for key, inner in entries:
        if isinstance(key, str):
            yield from _wrong(key, "", place)
        yield from _wrong(inner, unit, f"{place}.{str(key)[:40]}")


def _bounds(unit: str) -> tuple[float, float]:
    return _EXACT.get(unit) or next((bounds for end, bounds in _UNITS if unit.endswith(end)), _ANY)


def _short(value: float) -> str:
    return (
        f"a number of {len(str(abs(value)))} digits"
        if isinstance(value, int) and abs(value) > 10**20
        else f"{value:g}"
    )
