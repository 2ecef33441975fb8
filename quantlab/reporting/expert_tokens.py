"""Show the calibration tokens that each expert saw: a table by variant, a heat map of blocks and experts."""

from __future__ import annotations

from functools import partial
from typing import Any

from quantlab.comparison.compare import Comparison
from quantlab.numbers import fixed, percent
from quantlab.records import ExpertTokens
from quantlab.reporting.canvas import new_figure, svg
from quantlab.reporting.table import Column, Row, Table

_CELL_INCHES = 0.3
_LARGEST_INCHES = 24.0


def experts_table(comparison: Comparison) -> Table:
    """One row per variant whose library says it; empty for models without experts."""
    rows = [_row(slug, tokens) for slug, tokens in counted(comparison)]
    return Table("experts", tuple(rows), _COLUMNS)


def counted(comparison: Comparison) -> list[tuple[str, ExpertTokens]]:
    """By variant, the tokens that its experts saw."""
    records = [(slug, variant.records.quantize) for slug, variant in comparison.variants.items()]
    return [
        (slug, record.expert_tokens)
        for slug, record in records
        if record and not record.failure and record.expert_tokens and record.expert_tokens.experts
    ]


def _row(slug: str, tokens: ExpertTokens) -> Row:
    row = Row({"variant": slug, "calibration_tokens": tokens.calibration_tokens, "experts": tokens.experts})
    row.put("few", tokens.few)
    row.put("few_share", tokens.few / tokens.experts)
    row.put("none", tokens.none)
    row.put("fewest", min(min(block) for block in tokens.by_block.values() if block))
    row.put("rounded", tokens.rounded, "the library does not say")
    row.notes = (f"With few tokens: {tokens.few_are}.",) if tokens.few_are else ()
    return row


_whole = partial(fixed, decimals=0)
_COLUMNS = (
    Column("variant", ("variant",), str),
    Column("calibration tokens", ("calibration_tokens",), _whole),
    Column("experts (all blocks)", ("experts",), _whole),
    Column("below 0.5 % of the tokens", ("few",), _whole),
    Column("share", ("few_share",), percent),
    Column("without a token", ("none",), _whole),
    Column("fewest tokens", ("fewest",), _whole),
    Column("rounded to nearest, by the library's log", ("rounded",), _whole),
)


def expert_map_svg(comparison: Comparison) -> str | None:
    """Blocks over experts, for the variant with the most calibration tokens; None without experts."""
    variants = counted(comparison)
    if not variants:
        return None
    slug, tokens = max(variants, key=lambda each: each[1].calibration_tokens)
    experts = max(map(len, tokens.by_block.values()))
    grid = [[*row, *[float("nan")] * (experts - len(row))] for row in tokens.by_block.values()]
    width = min(_LARGEST_INCHES, max(4.0, 2.5 + experts * _CELL_INCHES))
    height = min(_LARGEST_INCHES, 1.4 + len(grid) * _CELL_INCHES)
    with new_figure(width, height) as figure:
        _draw(figure, grid, list(tokens.by_block), slug)
        return svg(figure)


def _draw(figure: Any, grid: list[list[float]], blocks: list[int], slug: str) -> None:
    axes = figure.subplots()
    image = axes.imshow(grid, aspect="auto", cmap="viridis", vmin=0)
    step = max(1, len(blocks) // 24)
    axes.set_yticks(range(0, len(blocks), step), [str(block) for block in blocks[::step]])
    axes.set_xticks(range(0, len(grid[0]), max(1, len(grid[0]) // 16)))
    axes.set_xlabel(f"expert ({slug})")
    axes.set_ylabel("block")
    axes.grid(visible=False)
    figure.colorbar(image, ax=axes, pad=0.02).set_label("calibration tokens")
