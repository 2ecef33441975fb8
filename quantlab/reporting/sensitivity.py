"""Show where the loss comes from: a table of the parts with the largest loss, and a heat map of all
blocks."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from quantlab.comparison.compare import Comparison
from quantlab.inert import drawn
from quantlab.numbers import divergence, fixed, percent
from quantlab.records import PartLoss, SensitivityRecord
from quantlab.reporting.canvas import new_figure, svg
from quantlab.reporting.table import Column, Row, Table

_CELL_INCHES = 0.3


def sensitivity_table(comparison: Comparison) -> Table:
    """One row per variant and part, the costliest first, then the sum, everything together, and nothing where
    it was measured; empty where no variant was asked for."""
    rows = [row for slug, record in measured_sensitivities(comparison) for row in _rows(slug, record)]
    return Table("sensitivity", tuple(rows), _COLUMNS)


def measured_sensitivities(comparison: Comparison) -> list[tuple[str, SensitivityRecord]]:
    """By variant, what was measured as a whole."""
    records = [(slug, variant.records.sensitivity) for slug, variant in comparison.variants.items()]
    return [(slug, record) for slug, record in records if record and record.whole and not record.failure]


def _costliest_first(record: SensitivityRecord) -> list[PartLoss]:
    return sorted(record.parts, key=lambda part: -part.kl_divergence_nats.value)


def _rows(slug: str, record: SensitivityRecord) -> list[Row]:
    whole = record.whole.value if record.whole else 0.0
    total = sum(part.kl_divergence_nats.value for part in record.parts)
    rows = []
    for part in _costliest_first(record):
        estimate = part.kl_divergence_nats
        rows.append(_line(slug, part.part, estimate.value, estimate.standard_error, record))
        rows[-1].put("share", estimate.value / total if total else None, "nothing diverges")
    last = _line(slug, f"sum of {len(record.parts)} parts", total, None, record)
    last.put("share", 1.0 if total else None, "nothing diverges")
    last.put("of_whole", total / whole if whole else None, "the whole does not diverge")
    rows.append(last)
    if record.whole:
        rows.append(_line(slug, "everything quantized", whole, record.whole.standard_error, record))
    if record.nothing_swapped_nats is not None:
        rows.append(
            _line(slug, "nothing quantized (first window)", record.nothing_swapped_nats, None, record)
        )
    for row in rows[len(record.parts) + 1 :]:
        row.put("share", None)
    return rows


def _line(slug: str, part: str, nats: float, error: float | None, record: SensitivityRecord) -> Row:
    row = Row(
        {"variant": slug, "part": part, "windows": record.windows, "window_tokens": record.window_tokens}
    )
    row.put("kl_divergence_nats", nats)
    row.put("kl_divergence_nats_standard_error", error)
    row.put("of_whole", None)
    return row


_COLUMNS = (
    Column("variant", ("variant",), str),
    Column("part", ("part",), str),
    Column(
        "KL divergence alone (nats)", ("kl_divergence_nats", "kl_divergence_nats_standard_error"), divergence
    ),
    Column("share", ("share",), percent),
    Column("sum / whole", ("of_whole",), partial(fixed, decimals=2)),
)


def heat_map_svg(comparison: Comparison) -> str | None:
    """Variants (and layers, where each was swapped) over blocks; None where there is nothing to draw."""
    values: dict[str, dict[int, float]] = {}
    parts = [
        (slug, part)
        for slug, record in measured_sensitivities(comparison)
        for part in _costliest_first(record)
    ]
    for slug, part in parts:
        match = re.match(r"block (\d{1,4}) ?(.*)", drawn(part.part))
        if match:
            line = f"{slug} {match[2]}".strip()
            values.setdefault(line, {})[int(match[1])] = part.kl_divergence_nats.value
    if not values:
        return None
    blocks = 1 + max(block for line in values.values() for block in line)
    grid = [[line.get(block, float("nan")) for block in range(blocks)] for line in values.values()]
    with new_figure(max(4.0, 2.5 + blocks * _CELL_INCHES), 1.4 + len(grid) * _CELL_INCHES) as figure:
        _draw(figure, grid, list(values))
        return svg(figure)


def _draw(figure: Any, grid: list[list[float]], lines: list[str]) -> None:
    from matplotlib.colors import LogNorm

    positive = [value for row in grid for value in row if value > 0]
    axes = figure.subplots()
    norm = LogNorm(min(positive), max(positive)) if positive and min(positive) < max(positive) else None
    image = axes.imshow(grid, aspect="auto", cmap="viridis", norm=norm)
    axes.set_yticks(range(len(lines)), lines)
    step = max(1, len(grid[0]) // 16)
    axes.set_xticks(range(0, len(grid[0]), step))
    axes.set_xlabel("block")
    axes.grid(visible=False)
    bar = figure.colorbar(image, ax=axes, pad=0.02)
    bar.set_label("nats/token" + (" (log)" if norm else ""))
