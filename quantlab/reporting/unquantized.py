"""Say what a variant left in 16 bits: as a cell beside the bits per weight, and as a sentence where it is
much."""

from __future__ import annotations

from collections.abc import Iterable

from quantlab.comparison.compare import Comparison, VariantComparison
from quantlab.numbers import listing, percent
from quantlab.records import Unquantized, WeightKind
from quantlab.reporting.table import Row

MUCH = 0.10
"""From this share of the weights that the bits in a variant's name speak of, the report's first lines say
it."""
_KINDS: dict[WeightKind, str] = {
    "experts": "experts",
    "linears": "linear layers",
    "towers": "towers of images or sound",
    "embedding": "embedding",
    "head": "head",
    "router": "routers",
    "norms": "norms and biases",
    "other": "others",
}
_SMALLEST_SHOWN = 0.0005
_NOT_COUNTED = "the quantize record does not count it: quantize again"


def put_left(row: Row, variant: VariantComparison) -> None:
    """The share left and its parts by kind, of a variant with quantized layers."""
    made = variant.records.quantize
    left = made.unquantized if made and variant.quantized else None
    why = variant.records.why_not("quantize") if made is None or made.failure else _NOT_COUNTED
    row.put(
        "unquantized_share",
        left.share if left else None,
        why if variant.quantized else "no layer is quantized",
    )
    row.put("unquantized_kinds", _kinds(left) if left else None)
    for kind in _KINDS:
        row.put(f"unquantized_{kind}_weights", left.by_kind.get(kind, 0) if left else None)


def left_cell(share: float, kinds: str | None) -> str:
    """The share, and the kinds that make it up."""
    return f"{percent(share)} ({kinds})" if kinds else percent(share)


def _kinds(left: Unquantized) -> str:
    shares = {kind: left.by_kind.get(kind, 0) / left.weights for kind in _KINDS}
    largest = sorted(shares, key=lambda kind: -shares[kind])
    return ", ".join(
        f"{_KINDS[kind]} {percent(shares[kind])}" for kind in largest if shares[kind] >= _SMALLEST_SHOWN
    )


def left_findings(comparison: Comparison) -> Iterable[str]:
    """One sentence of the variants that left much of what their name promises."""
    named = []
    for variant in comparison.quantized:
        left = variant.records.quantize.unquantized if variant.records.quantize else None
        share = left.share_of_promised if left else None
        if left and share is not None and share > MUCH:
            named.append(f"{variant.slug} ({percent(left.share)} of its weights: {_kinds(left)})")
    if named:
        yield (
            f"**Left in 16 bits**, though the name says fewer: {listing(named)}. Size, memory and divergence"
            " are those of this mixture."
        )
