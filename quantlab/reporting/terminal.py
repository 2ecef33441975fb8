"""The summary table for a terminal: the few columns that a choice needs, out of tables/summary.csv."""

from __future__ import annotations

import csv
from pathlib import Path

from rich.table import Table


def summary(report: Path) -> Table:
    """The table of a written report; a dash stands for what was not measured, its reason is in the report."""
    table = Table(title=None, header_style="bold")
    table.add_column("variant", no_wrap=True)
    for name in ("status", "bits/weight", "disk MB", "saved %", "KL nats", "mean drop, points", "verdict", "decode tok/s", "ratio"):
        table.add_column(name, justify="left" if name in ("status", "verdict") else "right", no_wrap=True)
    with (report.parent / "tables" / "summary.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            table.add_row(
                row["variant"],
                row["status"],
                _number(row["bits_per_weight"], ".2f"),
                _number(row["disk_bytes"], ".1f", 1e-6),
                _number(row["disk_saving"], ".1f", 100),
                _number(row["kl_divergence_nats"], ".3g"),
                _drop(row["mean_drop_points"], row["mean_drop_lower_points"], row["mean_drop_upper_points"]),
                row["verdict"] or "–",
                _number(row["decode_tokens_per_second"], ".3g"),
                _number(row["decode_ratio"], ".2f"),
            )
    return table


def _number(text: str, form: str, factor: float = 1.0) -> str:
    return format(float(text) * factor, form) if text else "–"


def _drop(value: str, lower: str, upper: str) -> str:
    if not value:
        return "–"
    return f"{float(value):.1f}" + (f" [{float(lower):.1f}, {float(upper):.1f}]" if lower and upper else "")
