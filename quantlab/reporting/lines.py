"""Decode speed over context depth or batch, a row of panels per device and engine: tokens/s, and the ratio to the 16-bit variant."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from quantlab.names import parse_variant
from quantlab.reporting.canvas import colours, new_figure, svg
from quantlab.reporting.table import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Axis = Literal["context_tokens", "batch"]
_OTHER: dict[Axis, Axis] = {"context_tokens": "batch", "batch": "context_tokens"}
_NAMES: dict[Axis, str] = {"context_tokens": "context (tokens)", "batch": "batch"}
_STYLES = (("-", "o"), ("--", "s"), (":", "^"), ("-.", "D"), ((0, (5, 1, 1, 1)), "v"), ((0, (1, 3)), "P"))
_ROW_INCHES = 3.1


class _Line(NamedTuple):
    """One variant's points along the axis, in the panel's own places."""

    slug: str
    rows: tuple[Row, ...]


class _Panel(NamedTuple):
    title: str
    ticks: tuple[int, ...]
    lines: tuple[_Line, ...]
    fixed: int
    """What the other axis is held at."""


def grid_svg(rows: Sequence[Row], axis: Axis) -> str | None:
    """The plot as SVG; None where no device and engine has two points along the axis."""
    known = [row for row in rows if row.number("decode_tokens_per_second") is not None]
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in known:
        groups.setdefault((str(row.values["device"]), str(row.values["engine"])), []).append(row)
    several = len({device for device, _ in groups}) > 1
    found = [_panel(rows, axis, f"{device}\n{engine}" if several else engine) for (device, engine), rows in groups.items()]
    panels = [panel for panel in found if panel]
    if not panels:
        return None
    with new_figure(9.6, _ROW_INCHES * len(panels)) as figure:
        grid = figure.subplots(len(panels), 2, squeeze=False)
        for across, panel in zip(grid, panels, strict=True):
            _draw(across[0], panel, axis, "decode_tokens_per_second", "decode (tokens/s)")
            _draw(across[1], panel, axis, "decode_ratio", "ratio to the 16-bit variant")
            across[1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=8, frameon=False, handlelength=3.2)
        return svg(figure)


def _panel(rows: Sequence[Row], axis: Axis, title: str) -> _Panel | None:
    """Along one axis at the smallest value of the other."""
    least = min(_whole(row, _OTHER[axis]) for row in rows)
    held = [row for row in rows if _whole(row, _OTHER[axis]) == least]
    ticks = sorted({_whole(row, axis) for row in held})
    slugs = dict.fromkeys(str(row.values["variant"]) for row in held)
    lines = [_Line(s, tuple(sorted((r for r in held if r.values["variant"] == s), key=lambda r: _whole(r, axis)))) for s in slugs]
    return _Panel(title, tuple(ticks), tuple(lines), least) if len(ticks) > 1 else None


def _whole(row: Row, key: Axis) -> int:
    return int(row.number(key) or 0)


def _draw(axes: Axes, panel: _Panel, axis: Axis, key: str, what: str) -> None:
    palette = colours([parse_variant(line.slug).method for line in panel.lines])
    counts: dict[str, int] = {}
    places = {tick: place for place, tick in enumerate(panel.ticks)}
    for line in panel.lines:
        method = parse_variant(line.slug).method
        style, marker = _STYLES[counts.setdefault(method, 0) % len(_STYLES)]
        counts[method] += 1
        look: Any = {"color": palette[method], "linestyle": style, "marker": marker, "markersize": 5, "linewidth": 1.4}
        there = [row for row in line.rows if row.number(key) is not None]
        x, y = [places[_whole(row, axis)] for row in there], [row.number(key) or 0.0 for row in there]
        axes.errorbar(x, y, yerr=_reach(there, key), capsize=2, elinewidth=0.9, label=line.slug, **look)
    if key == "decode_ratio":
        axes.axhline(1, color="#777777", linewidth=0.9)
    axes.set_ylim(0, 1.06 * axes.get_ylim()[1])
    axes.set_xlim(-0.3, len(panel.ticks) - 0.7)
    axes.set_xticks(range(len(panel.ticks)), [f"{tick:,}" for tick in panel.ticks])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.set_xlabel(f"{_NAMES[axis]}, not to scale; {_NAMES[_OTHER[axis]].split(' ')[0]} {panel.fixed:,}")
    title = "\n".join(fill(part, 52) for part in panel.title.split("\n"))
    axes.set_title(f"{title}: {what}", fontsize=9, loc="left")


def _reach(rows: Sequence[Row], key: str) -> list[list[float]]:
    """How far each interval reaches below and above; nothing where there is none."""
    ends = [(row.number(key) or 0.0, row.number(f"{key}_low"), row.number(f"{key}_high")) for row in rows]
    return [
        [max(0.0, value - low) if low is not None else 0.0 for value, low, _ in ends],
        [max(0.0, high - value) if high is not None else 0.0 for value, _, high in ends],
    ]
