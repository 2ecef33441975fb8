"""Draw the Pareto plot: divergence from the unquantized model over bytes on disk, with the frontier."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantlab.comparison.compare import Comparison
from quantlab.comparison.frontier import Point
from quantlab.inert import drawn
from quantlab.names import parse_variant
from quantlab.numbers import ByteUnit, significant, unit_for
from quantlab.reporting.canvas import colours, new_figure, svg
from quantlab.reporting.labels import Label, place_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROOM_BELOW = 0.25
"""The axis ends at this share of the least divergence of a quantized variant; what lies lower sits on its
edge."""


def pareto_svg(comparison: Comparison) -> str | None:
    """The plot as SVG; None where no variant has both a size and a divergence."""
    points = comparison.points
    if not points:
        return None
    crowd = max(0, len(points) - 15)
    with new_figure(min(11.0, 8.4 + 0.06 * crowd), min(9.0, 5.2 + 0.09 * crowd)) as figure:
        draw_pareto(figure, points, comparison.frontier, _floors(comparison))
        return svg(figure)


def draw_pareto(
    figure: Figure, points: tuple[Point, ...], frontier: tuple[Point, ...], floors: dict[str, float]
) -> None:
    """Draw onto an empty figure; `floors` are noise floors in nats by engine."""
    axes = figure.add_subplot()
    unit = unit_for(p.disk_bytes for p in points)
    bottom = _bottom(points)
    axes.set_yscale("log")
    axes.set_ylim(bottom, max([bottom * 100, *(p.kl_divergence_nats * 2.5 for p in points)]))
    sizes = [p.disk_bytes / unit.bytes for p in points]
    reach = max(sizes) - min(sizes) or max(sizes)
    axes.set_xlim(max(0.0, min(sizes) - 0.12 * reach), max(sizes) + 0.12 * reach)
    axes.set_xlabel(f"checkpoint on disk ({unit.name}); further left is smaller")
    axes.set_ylabel("KL divergence from the unquantized model\n(nats per token, log scale); lower is closer")
    path = _draw_frontier(axes, frontier, unit, bottom)
    lines = _draw_floors(axes, floors, bottom)
    _draw_points(axes, points, unit, bottom, [path, *lines])


def _draw_frontier(
    axes: Axes, frontier: tuple[Point, ...], unit: ByteUnit, bottom: float
) -> list[tuple[float, float]]:
    """Steps: between two variants nothing smaller is as close."""
    path: list[tuple[float, float]] = []
    for point in frontier:
        x, y = point.disk_bytes / unit.bytes, max(point.kl_divergence_nats, bottom)
        path += [(x, path[-1][1]), (x, y)] if path else [(x, y)]
    axes.plot(*zip(*path, strict=True), color="#9a9a9a", linewidth=1.2, label="Pareto frontier", zorder=1)
    return path


def _draw_floors(axes: Axes, floors: dict[str, float], bottom: float) -> list[list[tuple[float, float]]]:
    left, right = axes.get_xlim()
    for place, (engine, floor) in enumerate(sorted(floors.items())):
        if floor > bottom:
            style = ("--", ":", "-.")[place % 3]
            axes.axhline(
                floor,
                color="#777777",
                linewidth=1,
                linestyle=style,
                label=f"noise floor, {engine} ({significant(floor)})",
            )
        else:
            axes.plot([], [], " ", label=f"noise floor, {engine}: {significant(floor)}, below the axis")
    return [[(left, floor), (right, floor)] for floor in floors.values() if floor > bottom]


def _draw_points(
    axes: Axes,
    points: tuple[Point, ...],
    unit: ByteUnit,
    bottom: float,
    lines: list[list[tuple[float, float]]],
) -> None:
    palette = colours([parse_variant(p.variant).method for p in points])
    labels = []
    for point in points:
        x, y = point.disk_bytes / unit.bytes, max(point.kl_divergence_nats, bottom)
        below = point.kl_divergence_nats < bottom
        colour = palette[parse_variant(point.variant).method]
        axes.plot(
            [x],
            [y],
            marker="v" if below else "o",
            color=colour,
            markersize=7,
            linestyle="",
            clip_on=False,
            zorder=3,
        )
        text = (
            f"{point.variant} ({significant(point.kl_divergence_nats)}, below the axis)"
            if below
            else point.variant
        )
        labels.append(Label(x, y, text, colour))
    axes.legend(loc="upper right", fontsize=8, framealpha=0.9)
    place_labels(axes, labels, lines)


def _bottom(points: tuple[Point, ...]) -> float:
    quantized = [
        p.kl_divergence_nats
        for p in points
        if parse_variant(p.variant).bits < 16 and p.kl_divergence_nats > 0
    ]
    everything = [p.kl_divergence_nats for p in points if p.kl_divergence_nats > 0]
    return _ROOM_BELOW * min(quantized or everything or [1.0])


def _floors(comparison: Comparison) -> dict[str, float]:
    floors = [
        (drawn(variant.engine or ""), variant.divergence.floor.nats)
        for variant in comparison.variants.values()
    ]
    return {engine: nats for engine, nats in floors if engine and nats is not None}
