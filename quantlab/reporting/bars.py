"""Draw horizontal bars, one per variant. A variant without a number keeps its place, and the place says
why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from quantlab.names import parse_variant
from quantlab.reporting.canvas import colours, new_figure, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation

_ROW_INCHES = 0.27
_HEAD_INCHES = 0.75
_MOST_BESIDE = 3
_GREY: Any = {"fontsize": 8, "color": "#888888", "style": "italic"}
_MARK = "mark"
_ERROR: Any = {"elinewidth": 1, "capsize": 2.5, "ecolor": "#333333"}


class Bars(NamedTuple):
    """One panel."""

    title: str
    variants: tuple[str, ...]
    values: tuple[float | None, ...]
    ends: tuple[tuple[float, float] | None, ...]
    """Lower and upper end of each value's interval; None where there is none."""
    absent: tuple[str, ...]
    """What stands in place of a bar without a value."""
    text: Callable[[float], str]
    log: bool = False
    beside: tuple[str, ...] = ()
    """What follows each figure; empty, or one for each variant."""
    marks: tuple[float | None, ...] = ()
    """A tick at this value beside each bar, such as a ceiling; empty, or one for each variant."""


class Bar(NamedTuple):
    """One variant's value in a panel."""

    variant: str
    value: float | None
    ends: tuple[float, float] | None = None
    """Of its interval; None where there is none."""
    absent: str = "not measured"
    """What stands in place of the bar where there is no value."""


def bars_of(bars: Sequence[Bar], title: str, text: Callable[[float], str], log: bool = False) -> Bars:
    """A panel of one value per variant."""
    return Bars(
        title=title,
        variants=tuple(bar.variant for bar in bars),
        values=tuple(bar.value for bar in bars),
        ends=tuple(bar.ends for bar in bars),
        absent=tuple(bar.absent for bar in bars),
        text=text,
        log=log,
    )


def bars_svg(panels: Sequence[Bars]) -> str:
    """Panels side by side, or below each other where they are many or their variants differ."""
    beside = len({panel.variants for panel in panels}) == 1 and len(panels) <= _MOST_BESIDE
    return bars_grid_svg([panels] if beside else [[panel] for panel in panels])


def bars_grid_svg(rows: Sequence[Sequence[Bars]]) -> str:
    """Rows of panels; those of a row have the same variants."""
    heights = [len(row[0].variants) * _ROW_INCHES + _HEAD_INCHES for row in rows]
    wide = max(map(len, rows))
    with new_figure(max(8.4, 3.6 * wide), sum(heights)) as figure:
        grid = figure.subplots(len(rows), wide, squeeze=False, sharey="row", height_ratios=heights)
        for across, row in zip(grid, rows, strict=True):
            for axes, panel in zip(across, row, strict=False):
                _draw(axes, panel)
            for axes in across[len(row) :]:
                axes.set_visible(False)
        figure.draw_without_rendering()
        for axes in figure.axes:
            _keep_off_marks(axes)
        return svg(figure)


def _keep_off_marks(axes: Axes) -> None:
    """Move a figure that a mark stands in to the right of the mark."""
    marks = [line for line in axes.lines if line.get_gid() == _MARK]
    for mark in marks:
        x, place = (float(data[0]) for data in cast(Any, mark.get_data()))
        pixel = axes.transData.transform((x, place))[0]
        for text in cast("list[Annotation]", axes.texts):
            box = text.get_window_extent()
            if text.xy[1] == place and box.x0 - 3 <= pixel <= box.x1 + 3:
                text.xy = (x, place)


def _draw(axes: Axes, bars: Bars) -> None:
    palette = colours([parse_variant(slug).method for slug in bars.variants])
    low, high = _limits(bars)
    start = low if bars.log else 0.0
    axes.set_xscale("log" if bars.log else "linear")
    axes.set_xlim(low, high)
    for place, (slug, value, ends) in enumerate(zip(bars.variants, bars.values, bars.ends, strict=True)):
        if value is None:
            axes.annotate(
                bars.absent[place],
                (start, place),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                **_GREY,
            )
            continue
        end, colour = max(value, low), palette[parse_variant(slug).method]
        if bars.log:  # a bar's length means nothing on an axis without a zero
            axes.plot([start, end], [place, place], color=colour, linewidth=1, alpha=0.5)
            axes.plot([end], [place], color=colour, marker="o", markersize=6, clip_on=False)
        else:
            reach = [[end - ends[0]], [ends[1] - end]] if ends else None
            axes.barh(place, end, height=0.7, color=colour, xerr=reach, error_kw=_ERROR)
        tip = max(start, ends[1] if ends else end)
        mark = bars.marks[place] if bars.marks else None
        if mark is not None:
            axes.plot(
                [mark], [place], color="#222222", marker="|", markersize=13, markeredgewidth=1.8, gid=_MARK
            )
        text = bars.text(value) + (bars.beside[place] if bars.beside else "")
        axes.annotate(text, (tip, place), xytext=(5, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(range(len(bars.variants)), bars.variants)
    axes.set_ylim(len(bars.variants) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.set_title(bars.title, fontsize=9, loc="left")
    if low < 0:
        axes.axvline(0, color="#555555", linewidth=0.8)


def _limits(bars: Bars) -> tuple[float, float]:
    """The axis' ends, with room on the right for the figures."""
    known = [
        (value, ends or (value, value))
        for value, ends in zip(bars.values, bars.ends, strict=True)
        if value is not None
    ]
    if bars.log:
        positive = [value for value, _ in known if value > 0] or [1.0]
        low = min(positive) / 3
        return low, max(positive) * (max(positive) / low) ** 0.35
    low = min(0.0, *(ends[0] for _, ends in known))
    high = max(0.0, *(ends[1] for _, ends in known), *(mark for mark in bars.marks if mark is not None))
    span = high - low or 1.0
    return (low - 0.05 * span if low < 0 else 0.0), high + 0.32 * span
