"""Every plot of a report, by file name. Drawn from the tables' own values."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill

from quantlab.comparison.load import BASELINE
from quantlab.numbers import ByteUnit, fixed, perplexity, points, ratio, significant, unit_for
from quantlab.reporting.bars import Bars, bars_grid_svg, bars_of, bars_svg
from quantlab.reporting.lines import grid_svg
from quantlab.reporting.pareto import pareto_svg
from quantlab.reporting.table import Row, Table

_MOST_DEVICES = 3
_LOG_FROM = 10.0
"""Perplexities stand on a log scale where the largest is this many times the smallest."""


def draw_plots(summary: Table, accuracy: Table, speed: Table, devices: Table | None) -> dict[str, str]:
    """SVG by file name; a plot or panel without a single number is left out."""
    summary, accuracy, speed = summary.drawn(), accuracy.drawn(), speed.drawn()
    devices = devices.drawn() if devices else None
    tasks = dict.fromkeys(str(row.values["task"]) for row in accuracy.rows)
    panels = {
        "quality.svg": _quality(summary.rows),
        "accuracy.svg": [_drops([row for row in accuracy.rows if row.values["task"] == task], task) for task in tasks],
        "decode.svg": _speeds(summary.rows),
        "memory.svg": _memory(summary.rows),
    }
    shown = {name: [panel for panel in some if any(v is not None for v in panel.values)] for name, some in panels.items()}
    pareto = pareto_svg(summary)
    grids = {"depth.svg": grid_svg(speed.rows, "context_tokens"), "batch.svg": grid_svg(speed.rows, "batch")}
    whole = {"pareto.svg": pareto, **grids, "devices.svg": _devices(devices.rows) if devices else None}
    return {n: drawn for n, drawn in whole.items() if drawn} | {name: bars_svg(some) for name, some in shown.items() if some}


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
    return [_decoding(group, f"decoding in {engine} (tokens/s, ratio to its 16-bit variant)") for engine, group in groups.items()]


def _decoding(rows: Sequence[Row], title: str) -> Bars:
    """The ratio stands beside each figure, the ceiling as a tick."""
    marks = tuple(row.number("ceiling_tokens_per_second") for row in rows)
    beside = tuple(f" ({ratio(found)})" if (found := row.number("decode_ratio")) is not None else "" for row in rows)
    named = title + ("\n| the ceiling of the memory bandwidth" if any(mark is not None for mark in marks) else "")
    ends = ("decode_low", "decode_high")
    return bars_of(rows, "decode_tokens_per_second", named, significant, ends=ends)._replace(marks=marks, beside=beside)


def _devices(rows: Sequence[Row]) -> str | None:
    """A row of panels per engine, a panel per device, at the smallest workload."""
    devices = list(dict.fromkeys(str(row.values["device"]) for row in rows))
    lines = []
    for engine in sorted({str(row.values["engine"]) for row in rows if row.values["engine"]}):
        slugs = dict.fromkeys(str(row.values["variant"]) for row in rows if row.values["engine"] == engine)
        found = {(row.values["variant"], row.values["device"]): row for row in rows}
        lines += [
            [_decoding([found.get((slug, device)) or _absent(slug) for slug in slugs], _on(engine, device)) for device in some]
            for some in (devices[n : n + _MOST_DEVICES] for n in range(0, len(devices), _MOST_DEVICES))
        ]
    lines = [line for line in lines if any(value is not None for panel in line for value in panel.values)]
    return bars_grid_svg(lines) if lines else None


def _on(engine: str, device: str) -> str:
    return f"{fill(device, 44)}\ndecoding in {engine} (tokens/s, ratio)"


def _absent(slug: str) -> Row:
    return Row(dict.fromkeys(("decode_tokens_per_second", "decode_ratio", "ceiling_tokens_per_second")) | {"variant": slug})


def _memory(rows: Sequence[Row]) -> list[Bars]:
    unit = unit_for(value for row in rows for key in ("disk_bytes", "peak_memory_bytes") if (value := row.number(key)) is not None)
    peak = "on the device (NVML)" if rows and rows[0].values["peak_memory_kind"] == "process_vram_bytes" else "of the process"
    titles = {"disk_bytes": f"disk ({unit.name})", "peak_memory_bytes": f"peak memory {peak} ({unit.name})"}
    return [_scaled(bars_of(rows, key, title, str), unit) for key, title in titles.items()]


def _scaled(bars: Bars, unit: ByteUnit) -> Bars:
    values = tuple(value / unit.bytes if value is not None else None for value in bars.values)
    return bars._replace(values=values, text=lambda value: fixed(value, 1 if value < 1000 else 0))
