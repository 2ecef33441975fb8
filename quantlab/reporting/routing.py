"""Show which tokens of a mixture go to other experts than in the unquantized model: a table by variant, and a
heat map of variants and blocks."""

from __future__ import annotations

from typing import Any

from quantlab.comparison.compare import Comparison, VariantComparison
from quantlab.numbers import fixed, percent
from quantlab.records import DivergenceRecord, RoutingChanges
from quantlab.reporting.canvas import new_figure, svg
from quantlab.reporting.table import Column, Row, Table

_CELL_INCHES = 0.3
_LARGEST_INCHES = 24.0


def routing_table(comparison: Comparison) -> Table:
    """One row per variant of a mixture; empty for a model without experts."""
    variants = comparison.variants.values() if is_routed(comparison) else ()
    return Table("routing", tuple(map(_row, variants)), _COLUMNS)


def is_routed(comparison: Comparison) -> bool:
    """Whether the model has experts, by the records of any variant."""
    records = (variant.records.divergence for variant in comparison.variants.values())
    return any(_changes(record) or (record and record.routing_changes_reason) for record in records)


def put_routing(row: Row, variant: VariantComparison) -> None:
    """The share of tokens that go to another set of experts, with why it was not measured."""
    record = variant.records.divergence
    changes = _changes(record)
    share = changes.changed_token_share if changes else None
    row.put("changed_token_share", share.value if share else None, _why(variant))
    row.put("changed_token_share_standard_error", share.standard_error if share else None)


def _changes(record: DivergenceRecord | None) -> RoutingChanges | None:
    return record.routing_changes if record and not record.failure else None


def _why(variant: VariantComparison) -> str:
    record = variant.records.divergence
    if record is None or record.failure:
        return variant.records.why_not("diverge")
    return record.routing_changes_reason or "not in the record: run diverge again"


def _row(variant: VariantComparison) -> Row:
    row, why = Row({"variant": variant.slug}), _why(variant)
    put_routing(row, variant)
    changes = _changes(variant.records.divergence)
    replaced = changes.replaced_expert_share if changes else None
    row.put("replaced_expert_share", replaced.value if replaced else None, why)
    row.put("replaced_expert_share_standard_error", replaced.standard_error if replaced else None)
    by_block = changes.changed_token_share_by_block if changes else {}
    most = max(by_block, key=lambda block: by_block[block], default=None)
    row.put("most_changed_block", most, why)
    row.put("most_changed_block_token_share", None if most is None else by_block[most])
    row.put("experts", changes.experts if changes else None, why)
    row.put("experts_per_token", changes.experts_per_token if changes else None)
    row.fail(variant.status.failed)
    return row


def share(value: float, standard_error: float | None = None) -> str:
    """A share in per cent, without the sign."""
    error = f" ± {fixed(100 * standard_error, 2)}" if standard_error is not None else ""
    return f"{fixed(100 * value, 2)}{error}"


def _most(block: int, value: float) -> str:
    return f"{block} ({percent(value)})"


def _passed(experts: int, per_token: int) -> str:
    return f"{per_token} of {experts}"


SHARE = ("changed_token_share", "changed_token_share_standard_error")
_COLUMNS = (
    Column("variant", ("variant",), str),
    Column("tokens with another set of experts (%)", SHARE, share),
    Column("experts replaced (%)", ("replaced_expert_share", "replaced_expert_share_standard_error"), share),
    Column(
        "most changed block (its tokens)", ("most_changed_block", "most_changed_block_token_share"), _most
    ),
    Column("experts of a token", ("experts", "experts_per_token"), _passed),
)


def routing_map_svg(comparison: Comparison) -> str | None:
    """Variants over blocks: the share of tokens whose set of experts changed; None where none was
    measured."""
    found = {
        slug: changes.changed_token_share_by_block
        for slug, variant in comparison.variants.items()
        if (changes := _changes(variant.records.divergence))
    }
    if not found:
        return None
    blocks = sorted({block for shares in found.values() for block in shares})
    grid = [[100 * shares.get(block, float("nan")) for block in blocks] for shares in found.values()]
    width = min(_LARGEST_INCHES, max(4.0, 2.5 + len(blocks) * _CELL_INCHES))
    with new_figure(width, 1.4 + len(grid) * _CELL_INCHES) as figure:
        _draw(figure, grid, list(found), blocks)
        return svg(figure)


def _draw(figure: Any, grid: list[list[float]], variants: list[str], blocks: list[int]) -> None:
    axes = figure.subplots()
    image = axes.imshow(grid, aspect="auto", cmap="viridis", vmin=0)
    axes.set_yticks(range(len(variants)), variants)
    step = max(1, len(blocks) // 16)
    axes.set_xticks(range(0, len(blocks), step), [str(block) for block in blocks[::step]])
    axes.set_xlabel("block")
    axes.grid(visible=False)
    figure.colorbar(image, ax=axes, pad=0.02).set_label("tokens with another\nset of experts (%)")
