"""Turn all records of a model into tables, plots and a markdown report. Measures nothing and changes no
record.

Writes report.md, metrics.json, recipe.yaml (a copy), tables/, plots/ and dvc/ under reports/<model>/; the
same records give the same bytes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from quantlab.comparison.compare import compare
from quantlab.comparison.load import RECIPE, load_model
from quantlab.files import new_folder, write_text
from quantlab.names import check_model_name
from quantlab.reporting.accuracy import accuracy_table
from quantlab.reporting.cachetypes import cache_table
from quantlab.reporting.decisions import decisions_table
from quantlab.reporting.devices import across_table, other_devices
from quantlab.reporting.divergences import divergence_table, sureness_table
from quantlab.reporting.expectations import expectations_table
from quantlab.reporting.expert_tokens import expert_map_svg, experts_table
from quantlab.reporting.making import quantization_table
from quantlab.reporting.markdown import render
from quantlab.reporting.memory import memory_table
from quantlab.reporting.metrics import metrics_json, plot_files
from quantlab.reporting.plots import draw_plots
from quantlab.reporting.routing import routing_map_svg, routing_table
from quantlab.reporting.sensitivity import heat_map_svg, sensitivity_table
from quantlab.reporting.speed import speed_table
from quantlab.reporting.summary import summary_table

MAKERS = (
    *(summary_table, divergence_table, sureness_table, accuracy_table, decisions_table),
    *(quantization_table, sensitivity_table, expectations_table, experts_table, routing_table),
)
DEVICE_MAKERS = (memory_table, speed_table, cache_table, across_table)
"""Those that show other devices' records as well."""
OPTIONAL = ("caches", "devices", "experts", "routing")
"""Tables that only some reports have."""


def run(root: Path, model: str, left_out: list[str] | None = None) -> Path:
    """Write the report and return the path of report.md. Raises QuantlabError where there is nothing to
    report.

    What was merged and cannot be read stands as a warning in the report, and in `left_out` for whoever asked.
    """
    left_out = [] if left_out is None else left_out
    records = load_model(root, check_model_name(model))
    comparison = compare(records)
    others = [compare(other) for other in other_devices(root, records, left_out)]
    made = [*(make(comparison) for make in MAKERS), *(make(comparison, *others) for make in DEVICE_MAKERS)]
    tables = {table.name: table for table in made if table.rows or table.name not in OPTIONAL}
    plots = draw_plots(comparison, others)
    maps = {
        "sensitivity.svg": heat_map_svg(comparison),
        "experts.svg": expert_map_svg(comparison),
        "routing.svg": routing_map_svg(comparison),
    }
    plots |= {name: drawn for name, drawn in maps.items() if drawn}
    text = render(comparison, tables, plots, others, left_out)

    folder = root / "reports" / model
    _write_folder(
        folder / "tables",
        {f"{n}.{kind}": getattr(t, kind)() for n, t in tables.items() for kind in ("csv", "json")},
    )
    _write_folder(folder / "plots", plots)
    _write_folder(folder / "dvc", plot_files(comparison))
    write_text(folder / "metrics.json", metrics_json(comparison))
    write_text(folder / RECIPE, (root / "recipes" / f"{model}.yaml").read_text(encoding="utf-8"))
    # Last, so that a report never points at plots and tables of an earlier run.
    write_text(folder / "report.md", text)
    return folder / "report.md"


def _write_folder(target: Path, contents: Mapping[str, str]) -> None:
    with new_folder(target) as folder:
        for name, text in contents.items():
            write_text(folder / name, text)
