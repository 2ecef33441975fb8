"""Set the size and the colours of every plot, and write SVG that is the same bytes for the same numbers."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from quantlab import methods

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_OTHERS = ("#8c6d1f", "#56b4e9", "#6a51a3", "#a6761d", "#1b7837", "#b2182b")
"""Colours that differ for colour-blind readers too (Okabe and Ito, https://jfly.uni-koeln.de/color/)."""

_STYLE: Any = {
    # A fixed salt makes the ids in the SVG, and so its bytes, depend on the figure alone.
    "svg.hashsalt": "quantlab",
    # Outlines need no font on the reader's machine, so labels that do not overlap here overlap nowhere.
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


def colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each method, the same in every plot of a report: its own, else one of the spare ones."""
    own = {name: methods.load(name).colour for name in set(names) & set(methods.names())}
    others = sorted(name for name in set(names) if not own.get(name))
    spare = {name: _OTHERS[place % len(_OTHERS)] for place, name in enumerate(others)}
    return {name: own.get(name) or spare[name] for name in dict.fromkeys(names)}


@contextmanager
def new_figure(width_inches: float, height_inches: float) -> Iterator[Figure]:
    """A figure without a display; it lives in the block."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width_inches, height_inches), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def svg(figure: Figure) -> str:
    """The figure as SVG, without a date."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": "quantlab"})
    # matplotlib leaves blanks at line ends, which every diff shows.
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"
