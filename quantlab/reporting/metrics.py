"""The same numbers for DVC: `metrics.json` for `dvc metrics show`, and small CSV files for `dvc plots show`."""

from __future__ import annotations

import json

import pandas as pd

from quantlab.reporting.table import Table

_METRICS = (
    "bits_per_weight",
    "disk_bytes",
    "disk_saving",
    "peak_memory_bytes",
    "peak_memory_saving",
    "perplexity",
    "kl_divergence_nats",
    "mean_drop_points",
    "decode_tokens_per_second",
    "decode_ratio",
    "prefill_tokens_per_second",
    "prefill_ratio",
)
PLOTS: dict[str, tuple[str, ...]] = {
    "quality.csv": ("variant", "method", "disk_bytes", "kl_divergence_nats", "perplexity"),
    "drops.csv": ("variant", "method", "mean_drop_points"),
    "speed.csv": ("variant", "engine", "decode_tokens_per_second", "prefill_tokens_per_second"),
}
"""Columns of each file, all from the summary. A variant that lacks one is left out: DVC draws an empty cell as a number."""


def metrics_json(summary: Table) -> str:
    """Numbers by variant; a number that was not measured has no key."""
    drops = [key for key in summary.rows[0].values if key.startswith("drop_points_")] if summary.rows else []
    tree = {str(row.values["variant"]): {k: v for k in (*_METRICS, *drops) if (v := row.values[k]) is not None} for row in summary.rows}
    return json.dumps({variant: found for variant, found in tree.items() if found}, indent=2) + "\n"


def plot_files(summary: Table) -> dict[str, str]:
    """CSV by file name, unrounded."""
    files = {}
    for name, keys in PLOTS.items():
        rows = [{key: row.values[key] for key in keys} for row in summary.rows if all(row.values[key] is not None for key in keys)]
        files[name] = str(pd.DataFrame(rows, columns=list(keys)).to_csv(index=False, lineterminator="\n"))
    return files
