"""Tabulate how each checkpoint was made: time, memory, and the check of the saved file."""

from __future__ import annotations

from functools import partial

from quantlab.comparison.compare import Comparison, VariantComparison
from quantlab.numbers import ByteUnit, beside, fixed, unit_for
from quantlab.reporting.table import Column, Row, Table

_FIELDS = (
    "seconds",
    "peak_rss_bytes",
    "peak_device_bytes",
    "allocator",
    "stored_bytes",
    "disk_bytes",
    "parameters",
    "quantized_layers",
    "expected_layers",
    "loss_in_memory_nats",
    "loss_reloaded_nats",
    "loss_tolerance_nats",
)
_NO_MODEL = (
    "no quantized model in memory to compare with: the checkpoint is unquantized, external, or written by"
    " llama.cpp file to file"
)


def quantization_table(comparison: Comparison) -> Table:
    """One row per variant."""
    rows = tuple(_row(variant) for variant in comparison.variants.values())
    made = [variant.records.quantize for variant in comparison.variants.values()]
    unit = unit_for(record.peak_rss_bytes for record in made if record and record.peak_rss_bytes is not None)
    return Table("quantization", rows, _columns(unit))


def _row(variant: VariantComparison) -> Row:
    made, why = variant.records.quantize, variant.records.why_not("quantize")
    row = Row({"variant": variant.slug}, notes=variant.records.notes("quantize"))
    for name in _FIELDS:
        lacking = (
            _NO_MODEL
            if made and name == "loss_in_memory_nats" and made.loss_reloaded_nats is not None
            else None
        )
        row.put(name, getattr(made, name) if made else None, lacking or why)
    types = ", ".join(f"{count} {kind}" for kind, count in sorted(made.tensor_types.items())) if made else ""
    row.put("tensor_types", types or None, why)
    row.fail(variant.status.failed)
    return row


def _columns(unit: ByteUnit) -> tuple[Column, ...]:
    return (
        Column("variant", ("variant",), str),
        Column("time (s)", ("seconds",), partial(fixed, decimals=0)),
        Column(
            f"peak memory ({unit.name}, allocator)",
            ("peak_rss_bytes", "allocator"),
            partial(beside, unit.text, str),
        ),
        Column("layers quantized", ("quantized_layers", "expected_layers"), _layers),
        Column("loss in memory (nats)", ("loss_in_memory_nats",), partial(fixed, decimals=4)),
        Column("loss reloaded (nats)", ("loss_reloaded_nats",), partial(fixed, decimals=4)),
        Column("tensors", ("tensor_types",), str),
    )


def _layers(done: int, asked: int | None) -> str:
    if done == asked == 0:
        return "none"
    return f"{done} of {asked}" if asked is not None else str(done)
