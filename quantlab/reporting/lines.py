"""Plot decode speed over context depth or batch: tokens/s and the ratio to the 16-bit variant, a row per
device and engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from quantlab.comparison.speeds import PointSpeed
from quantlab.names import parse_variant
from quantlab.reporting.canvas import colours, new_figure, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Axis = Literal["context_tokens", "batch"]
_OTHER: dict[Axis, Axis] = {"context_tokens": "batch", "batch": "context_tokens"}
_NAMES: dict[Axis, str] = {"context_tokens": "context (tokens)", "batch": "batch"}
_STYLES = (("-", "o"), ("--", "s"), (":", "^"), ("-.", "D"), ((0, (5, 1, 1, 1)), "v"), ((0, (1, 3)), "P"))
_ROW_INCHES = 3.1


class TimedPoint(NamedTuple):
    """One variant's speed at one point, on one device and engine."""

    slug: str
    device: str
    engine: str
    speed: PointSpeed

    def at(self, axis: Axis) -> int:
        """Its place along an axis."""
        return self.speed.point.batch if axis == "batch" else self.speed.point.context_tokens


class _Line(NamedTuple):
    """One variant's points along the axis, in the panel's own places."""

    slug: str
    points: tuple[TimedPoint, ...]


class _Panel(NamedTuple):
    title: str
    ticks: tuple[int, ...]
    lines: tuple[_Line, ...]
    fixed: int
    """What the other axis is held at."""


class _Value(NamedTuple):
    """What is drawn of a point, with its interval where it has one."""

    middle: float
    low: float | None
    high: float | None


def grid_svg(timed: Sequence[TimedPoint], axis: Axis) -> str | None:
    """The plot as SVG; None where no device and engine has two points along the axis."""
    groups: dict[tuple[str, str], list[TimedPoint]] = {}
    for point in timed:
        if point.speed.decode.rate:
            groups.setdefault((point.device, point.engine), []).append(point)
    several = len({device for device, _ in groups}) > 1
    titles = {(device, engine): f"{device}\n{engine}" if several else engine for device, engine in groups}
    panels = [panel for key, points in groups.items() if (panel := _panel(points, axis, titles[key]))]
    if not panels:
        return None
    with new_figure(9.6, _ROW_INCHES * len(panels)) as figure:
        grid = figure.subplots(len(panels), 2, squeeze=False)
        for across, panel in zip(grid, panels, strict=True):
            _draw(across[0], panel, axis, _rate, "decode (tokens/s)")
            _draw(across[1], panel, axis, _ratio, "ratio to the 16-bit variant")
            across[1].legend(
                loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=8, frameon=False, handlelength=3.2
            )
        return svg(figure)


def _rate(speed: PointSpeed) -> _Value | None:
    rate = speed.decode.rate
    return _Value(rate.value, rate.low, rate.high) if rate else None


def _ratio(speed: PointSpeed) -> _Value | None:
    ratio = speed.decode.ratio
    return _Value(ratio.value, ratio.low, ratio.high) if ratio.value is not None else None


def _panel(points: Sequence[TimedPoint], axis: Axis, title: str) -> _Panel | None:
    """Along one axis at the smallest value of the other."""
    least = min(point.at(_OTHER[axis]) for point in points)
    held = [point for point in points if point.at(_OTHER[axis]) == least]
    ticks = sorted({point.at(axis) for point in held})
    slugs = dict.fromkeys(point.slug for point in held)
    own = {
        slug: sorted((p for p in held if p.slug == slug), key=lambda point: point.at(axis)) for slug in slugs
    }
    lines = tuple(_Line(slug, tuple(own_points)) for slug, own_points in own.items())
    return _Panel(title, tuple(ticks), lines, least) if len(ticks) > 1 else None


def _draw(
    axes: Axes, panel: _Panel, axis: Axis, of: Callable[[PointSpeed], _Value | None], what: str
) -> None:
    palette = colours([parse_variant(line.slug).method for line in panel.lines])
    counts: dict[str, int] = {}
    places = {tick: place for place, tick in enumerate(panel.ticks)}
    for line in panel.lines:
        method = parse_variant(line.slug).method
        style, marker = _STYLES[counts.setdefault(method, 0) % len(_STYLES)]
        counts[method] += 1
        look: Any = {
            "color": palette[method],
            "linestyle": style,
            "marker": marker,
            "markersize": 5,
            "linewidth": 1.4,
        }
        values = [(places[point.at(axis)], value) for point in line.points if (value := of(point.speed))]
        x, y = [place for place, _ in values], [value.middle for _, value in values]
        reach = _reach([value for _, value in values])
        axes.errorbar(x, y, yerr=reach, capsize=2, elinewidth=0.9, label=line.slug, **look)
    if what.startswith("ratio"):
        axes.axhline(1, color="#777777", linewidth=0.9)
    axes.set_ylim(0, 1.06 * axes.get_ylim()[1])
    axes.set_xlim(-0.3, len(panel.ticks) - 0.7)
    axes.set_xticks(range(len(panel.ticks)), [f"{tick:,}" for tick in panel.ticks])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.set_xlabel(f"{_NAMES[axis]}, not to scale; {_NAMES[_OTHER[axis]].split(' ')[0]} {panel.fixed:,}")
    title = "\n".join(fill(part, 52) for part in panel.title.split("\n"))
    axes.set_title(f"{title}: {what}", fontsize=9, loc="left")


def _reach(values: Sequence[_Value]) -> list[list[float]]:
    """How far each interval reaches below and above; nothing where there is none."""
    return [
        [max(0.0, value.middle - value.low) if value.low is not None else 0.0 for value in values],
        [max(0.0, value.high - value.middle) if value.high is not None else 0.0 for value in values],
    ]
