"""Write a verification as a page of markdown, and one result as a line for a terminal."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping, Sequence

from quantlab.inert import markdown
from quantlab.numbers import fixed, significant
from quantlab.records.verification import CheckRecord, Status, Verification

WORDS: Mapping[Status, str] = {
    "passed": "passed",
    "failed": "**failed**",
    "not_applicable": "not applicable",
    "not_run": "not run",
}
_COLUMNS = {
    "kl_divergence_nats": "KL divergence (nats)",
    "rounding_to_nearest_nats": "rounding to nearest (nats)",
    "reload_difference_nats": "reload differs by (nats)",
    "whole_bits_per_weight": "bits per weight",
    "stored_bytes": "tensors (MB)",
    "planned_stored_bytes": "planned (MB)",
    "weights_bytes": "resident weights (MB)",
    "kv_cache_bytes": "cache (MB)",
    "peak_allocated_bytes": "peak allocated (MB)",
    "peak_reserved_bytes": "peak reserved (MB)",
    "driver_bytes": "driver's peak (MB)",
    "peak_process_bytes": "peak of the process (MB)",
    "prefill_tokens_per_second": "prefill (tokens/s)",
    "decode_tokens_per_second": "decode (tokens/s)",
    "decode_to_16_bit_ratio": "decode to 16 bits",
    "quantize_seconds": "quantizing (s)",
}
_HEADLINE = ("kl_divergence_nats", "decode_tokens_per_second", "decode_to_16_bit_ratio", "weights_bytes")
_UNITS = {
    "_bytes_per_second": ("GB/s", 1e9),
    "_tokens_per_second": ("tokens/s", 1.0),
    "_bytes": ("MB", 1e6),
    "_seconds": ("s", 1.0),
    "_nats": ("nats", 1.0),
    "_ratio": ("×", 1.0),
    "_share": ("%", 0.01),
    "_watts": ("W", 1.0),
    "_joules": ("J", 1.0),
    "_mhz": ("MHz", 1.0),
    "_celsius": ("°C", 1.0),
    "_bits_per_weight": ("bits per weight", 1.0),
    "_cores": ("cores", 1.0),
    "_layers": ("layers", 1.0),
    "_tokens": ("tokens", 1.0),
}


def page(found: Verification) -> str:
    """The whole page."""
    stages = [r for r in found.results if set(_HEADLINE[:2]) <= set(r.outcome.figures)]
    others = [r for r in found.results if r not in stages]
    parts = [
        f"# Verified: {markdown(found.device)}\n",
        "Written by `quantlab doctor --verify`, which proves on a machine what works there.\n",
        _about(found),
        f"{_counts(found)}\n",
        *_section("What failed", "".join(_reasons(found.failed()))),
        *_section("Through every stage", _stages(stages)),
        *_section("Kernels that ran", _kernels(stages)),
        *_section("Other checks", _others(others)),
        *_section("Libraries", ", ".join(f"{name} {version}" for name, version in found.versions.items())),
    ]
    return "\n".join(parts)


def line(result: CheckRecord) -> str:
    """One result for a terminal, without its mark."""
    outcome = result.outcome
    shown = {name: value for name, value in outcome.figures.items() if name in _HEADLINE}
    told = figures_text(shown or dict(list(outcome.figures.items())[:4]))
    return f"{result.name:<38}{result.seconds:>5.0f} s  {outcome.reason or told}"


def figures_text(figures: Mapping[str, float]) -> str:
    """`weights 12.3 MB, decode 51.0 tokens/s`."""
    return ", ".join(_figure(name, value) for name, value in figures.items())


def _figure(name: str, value: float) -> str:
    ending = next(ending for ending in sorted(_UNITS, key=len, reverse=True) if name.endswith(ending))
    unit, size = _UNITS[ending]
    return f"{name.removesuffix(ending).replace('_', ' ')} {_number(value / size)} {unit}"


def _number(value: float) -> str:
    return fixed(value, 0) if abs(value) >= 1000 else significant(value)


def _about(found: Verification) -> str:
    dates = sorted(result.finished[:10] for result in found.results)
    gpus = ", ".join(f"{g.name} ({g.memory_bytes / 2**30:.0f} GiB, driver {g.driver})" for g in found.gpus)
    rows = {
        "device": f"{found.asked}: {found.device}",
        "GPUs": gpus or "none",
        "processor": f"{found.cpu}, {found.memory_gib} GiB of memory",
        "system": f"{found.system}, Python {found.python}",
        "quantlab": f"{found.quantlab}, code {found.code_sha256[:12]}",
        "dates": " to ".join(dict.fromkeys((dates[0], dates[-1]))) if dates else "none",
        **{f"model `{name}`": words for name, words in found.models.items()},
    }
    lines = [f"| {name} | {markdown(text)} |" for name, text in rows.items()]
    return "\n".join(["| | |", "|:---|:---|", *lines, ""])


def _counts(found: Verification) -> str:
    counts = collections.Counter(result.outcome.status for result in found.results)
    return ", ".join(f"{counts[status]} {word.strip('*')}" for status, word in WORDS.items()) + "."


def _section(title: str, text: str) -> Iterator[str]:
    if text:
        yield f"## {title}\n{text.rstrip()}\n"


def _reasons(results: Sequence[CheckRecord]) -> Iterator[str]:
    for result in results:
        yield f"- **{result.name}**: {markdown(result.outcome.reason)}\n"


def _stages(results: Sequence[CheckRecord]) -> str:
    """One row for each variant and engine; columns that nobody has a figure for are left out."""
    if not results:
        return ""
    keys = [key for key in _COLUMNS if any(key in result.outcome.figures for result in results)]
    rows = [["subject", "result", *(_COLUMNS[key] for key in keys)]]
    for result in results:
        cells = [_cell(key, result.outcome.figures.get(key)) for key in keys]
        rows.append([result.name, WORDS[result.outcome.status], *cells])
    rule = "|:---|:---|" + "---:|" * len(keys)
    head, *body = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([head, rule, *body])


def _cell(key: str, value: float | None) -> str:
    if value is None:
        return "—"
    return _number(value / 1e6) if key.endswith("_bytes") else _number(value)


def _kernels(results: Sequence[CheckRecord]) -> str:
    lines = [
        f"- {result.name}: {markdown(result.outcome.facts['kernel'])}"
        for result in results
        if "kernel" in result.outcome.facts
    ]
    return "\n".join(lines)


def _others(results: Sequence[CheckRecord]) -> str:
    if not results:
        return ""
    rows = ["| check | result | seen |", "|:---|:---|:---|"]
    for result in results:
        outcome = result.outcome
        facts = "; ".join(f"{name}: {text}" for name, text in outcome.facts.items())
        seen = "; ".join(filter(None, [outcome.reason, figures_text(outcome.figures), facts]))
        rows.append(f"| {result.name} | {WORDS[outcome.status]} | {markdown(seen)} |")
    return "\n".join(rows)
