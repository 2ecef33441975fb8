"""Write the numbers for DVC: `metrics.json` for `dvc metrics show`, and small CSV files for `dvc plots
show`."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pandas as pd

from quantlab.comparison.compare import Comparison, VariantComparison
from quantlab.comparison.rates import Phase

Value = str | float | int | None
PLOTS: dict[str, tuple[str, ...]] = {
    "quality.csv": ("variant", "method", "disk_bytes", "kl_divergence_nats", "perplexity"),
    "drops.csv": ("variant", "method", "mean_drop_points"),
    "speed.csv": ("variant", "engine", "decode_tokens_per_second", "prefill_tokens_per_second"),
}
"""Columns of each file. A variant that lacks one is left out: DVC draws an empty cell as a number."""


def metrics_json(comparison: Comparison) -> str:
    """Numbers by variant; a number that was not measured has no key."""
    known = {
        slug: {
            key: value
            for key, value in {**_metrics(variant), **_drops(variant, comparison.tasks)}.items()
            if value is not None
        }
        for slug, variant in comparison.variants.items()
    }
    return json.dumps({slug: numbers for slug, numbers in known.items() if numbers}, indent=2) + "\n"


def plot_files(comparison: Comparison) -> dict[str, str]:
    """CSV by file name, unrounded."""
    every: list[Mapping[str, Value]] = [
        {"variant": slug, "method": variant.method, "engine": variant.engine, **_metrics(variant)}
        for slug, variant in comparison.variants.items()
    ]
    files = {}
    for name, keys in PLOTS.items():
        rows = [
            {key: values[key] for key in keys}
            for values in every
            if all(values[key] is not None for key in keys)
        ]
        files[name] = str(pd.DataFrame(rows, columns=list(keys)).to_csv(index=False, lineterminator="\n"))
    return files


def _metrics(variant: VariantComparison) -> dict[str, Value]:
    made, divergence = variant.records.quantize, variant.records.divergence
    perplexity, nats = divergence.perplexity if divergence else None, variant.divergence.estimate
    routing = divergence.routing_changes if divergence else None
    decode, prefill = _speed(variant, "decode"), _speed(variant, "prefill")
    return {
        "bits_per_weight": made.bits_per_weight if made else None,
        "disk_bytes": variant.disk.bytes,
        "disk_saving": variant.disk.share,
        "peak_memory_bytes": variant.peak.bytes,
        "peak_memory_saving": variant.peak.share,
        "perplexity": perplexity.value if perplexity else None,
        "kl_divergence_nats": nats.value if nats else None,
        "changed_token_share": routing.changed_token_share.value if routing else None,
        "mean_drop_points": variant.mean.drop.points if variant.mean.drop else None,
        "decode_tokens_per_second": decode[0],
        "decode_ratio": decode[1],
        "prefill_tokens_per_second": prefill[0],
        "prefill_ratio": prefill[1],
    }


def _speed(variant: VariantComparison, phase: Phase) -> tuple[float | None, float | None]:
    """Tokens per second at the smallest workload, and their ratio."""
    speed = variant.first_speed.of(phase) if variant.first_speed else None
    return (speed.rate.value if speed.rate else None, speed.ratio.value) if speed else (None, None)


def _drops(variant: VariantComparison, tasks: tuple[str, ...]) -> dict[str, Value]:
    drops = {task: variant.tasks[task].drop for task in tasks}
    return {f"drop_points_{task}": drop.points if drop else None for task, drop in drops.items()}
