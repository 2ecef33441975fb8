"""Every plot of a report, by file name. Drawn from the tables' own values."""

from __future__ import annotations

from collections.abc import Sequence

from quantlab.reporting.bars import Bars, bars_of, bars_svg
from quantlab.reporting.load import BASELINE
from quantlab.reporting.numbers import ByteUnit, fixed, perplexity, points, significant, unit_for
from quantlab.reporting.pareto import pareto_svg
from quantlab.reporting.table import Row, Table

_LOG_FROM = 10.0
"""Perplexities stand on a log scale where the largest is this many times the smallest."""


def draw_plots(summary: Table, accuracy: Table) -> dict[str, str]:
    """SVG by file name; a plot or panel without a single number is left out."""
    tasks = dict.fromkeys(str(row.values["task"]) for row in accuracy.rows)
    panels = {
        "quality.svg": _quality(summary.rows),
        "accuracy.svg": [_drops([row for row in accuracy.rows if row.values["task"] == task], task) for task in tasks],
        "decode.svg": _speeds(summary.rows),
        "memory.svg": _memory(summary.rows),
    }
    shown = {name: [panel for panel in some if any(v is not None for v in panel.values)] for name, some in panels.items()}
    pareto = pareto_svg(summary)
    return ({"pareto.svg": pareto} if pareto else {}) | {name: bars_svg(some) for name, some in shown.items() if some}


def _quality(rows: Sequence[Row]) -> list[Bars]:
    known = [value for row in rows if (value := row.number("perplexity"))]
    wide = bool(known) and max(known) > _LOG_FROM * min(known)
    return [
        bars_of(rows, "perplexity", "perplexity (log scale)" if wide else "perplexity", perplexity, log=wide),
        bars_of(rows, "kl_divergence_nats", "KL divergence (nats/token, log scale)", significant, log=True),
    ]


def _drops(rows: Sequence[Row], task: str) -> Bars:
    shown = [row for row in rows if row.values["variant"] != BASELINE]
    return bars_of(
        shown, "drop_points", f"{task}: accuracy drop\n(points, 95 % interval)", points, ends=("drop_lower_points", "drop_upper_points")
    )


def _speeds(rows: Sequence[Row]) -> list[Bars]:
    """A panel per engine, because figures across engines are not compared."""
    # A variant that never ran has no engine: it stands with the others of its method.
    usual = {row.values["method"]: row.values["engine"] for row in rows if row.values["engine"]}
    engine_of = [row.values["engine"] or usual.get(row.values["method"]) for row in rows]
    groups = {
        engine: [row for row, its in zip(rows, engine_of, strict=True) if its == engine] for engine in sorted(set(usual.values()), key=str)
    }
    title = "decoding in {} (tokens/s), not compared across engines"
    return [bars_of(group, "decode_tokens_per_second", title.format(engine), significant) for engine, group in groups.items()]


def _memory(rows: Sequence[Row]) -> list[Bars]:
    unit = unit_for(value for row in rows for key in ("disk_bytes", "peak_memory_bytes") if (value := row.number(key)) is not None)
    peak = "on the device (NVML)" if rows and rows[0].values["peak_memory_kind"] == "process_vram_bytes" else "of the process"
    titles = {"disk_bytes": f"disk ({unit.name})", "peak_memory_bytes": f"peak memory {peak} ({unit.name})"}
    return [_scaled(bars_of(rows, key, title, str), unit) for key, title in titles.items()]


def _scaled(bars: Bars, unit: ByteUnit) -> Bars:
    values = tuple(value / unit.bytes if value is not None else None for value in bars.values)
    return bars._replace(values=values, text=lambda value: fixed(value, 1 if value < 1000 else 0))
