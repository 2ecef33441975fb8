"""Show the few columns of the summary that a choice needs in a terminal."""

from __future__ import annotations

from rich.table import Table

from quantlab.comparison.compare import Comparison, VariantComparison

_LEFT = ("status", "verdict")
_COLUMNS = (
    "status",
    "bits/weight",
    "disk MB",
    "saved %",
    "KL nats",
    "mean drop, points",
    "verdict",
    "decode tok/s",
    "ratio",
)


def summary(comparison: Comparison) -> Table:
    """One line per variant; a dash stands for what was not measured, its reason is in the report."""
    table = Table(title=None, header_style="bold")
    table.add_column("variant", no_wrap=True)
    for name in _COLUMNS:
        table.add_column(name, justify="left" if name in _LEFT else "right", no_wrap=True)
    for variant in comparison.variants.values():
        table.add_row(*_cells(variant))
    return table


def _cells(variant: VariantComparison) -> list[str]:
    made, nats, judged = variant.records.quantize, variant.divergence.estimate, variant.mean.judged
    decode = variant.first_speed.decode if variant.first_speed else None
    return [
        variant.slug,
        variant.status.name,
        _number(made.bits_per_weight if made else None, ".2f"),
        _number(variant.disk.bytes, ".1f", 1e-6),
        _number(variant.disk.share, ".1f", 100),
        _number(nats.value if nats else None, ".3g") + _nearest(variant),
        _drop(variant),
        judged.verdict if judged else "–",
        _number(decode.rate.value if decode and decode.rate else None, ".3g"),
        _number(decode.ratio.value if decode else None, ".2f"),
    ]


def _nearest(variant: VariantComparison) -> str:
    """What plain rounding loses, beside a suspicious variant; the figure before it is of all windows."""
    nearest = variant.nearest
    if not nearest.suspicion or nearest.rounded_nats is None:
        return ""
    return f" (rounding {nearest.rounded_nats:.3g})"


def _number(value: float | None, form: str, factor: float = 1.0) -> str:
    return format(value * factor, form) if value is not None else "–"


def _drop(variant: VariantComparison) -> str:
    mean, judged = variant.mean.drop, variant.mean.judged
    if mean is None:
        return "–"
    ends = f" [{judged.ninety_five.lower:.1f}, {judged.ninety_five.upper:.1f}]" if judged else ""
    return f"{mean.points:.1f}{ends}"
