"""Write the report: findings, plots and tables in the order in which a reader needs them.

Everything was computed elsewhere; the template only arranges it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from importlib.resources import files
from math import ceil, log
from typing import Any

import jinja2

from quantlab.analysis.verdict import Counts, items_to_decide
from quantlab.catalogue.expectation import expectations
from quantlab.comparison.compare import Comparison
from quantlab.comparison.footprint import bits_above_16
from quantlab.comparison.load import BASELINE, ModelRecords
from quantlab.comparison.nearest import NOISE_NATS, SUSPICIOUS_TIMES
from quantlab.inert import Markdown, markdown
from quantlab.reporting.cautions import cautions
from quantlab.reporting.expectations import expectation_findings
from quantlab.reporting.findings import findings
from quantlab.reporting.hardware import hardware
from quantlab.reporting.provenance import provenance, published, settings
from quantlab.reporting.sensitivity import measured_sensitivities
from quantlab.reporting.table import Table

TEMPLATE = "report.md.j2"


def render(
    comparison: Comparison,
    tables: Mapping[str, Table],
    plots: Collection[str],
    others: Sequence[Comparison] = (),
    left_out: Sequence[str] = (),
) -> str:
    """The report in GitHub's markdown; `plots` are the names of the files that there are, `others` those of
    other devices, `left_out` says what of them could not be read."""
    records = comparison.records
    return _template().render(
        model=records.model,
        description=" ".join(records.recipe.description.split()),
        caveat=_caveat(records),
        findings=findings(comparison),
        cautions=[*cautions(comparison), *left_out],
        expected=expectation_findings(comparison),
        quoted_source=expectations().quoted_bands.source,
        tables={name: table.markdown() for name, table in tables.items()},
        plots=plots,
        provenance=provenance(records),
        settings=settings(records),
        published=published(records),
        baseline=BASELINE,
        disk_baseline=BASELINE if bits_above_16(records) is None else f"{BASELINE} at 16 bits per weight",
        **_items(records.recipe.comparison.margin_points),
        sensitivity_windows=_windows(comparison),
        rounding_limit=_rounding_limit(comparison),
        margin=f"{records.recipe.comparison.margin_points:g}",
        gigabytes="(GB" in tables["summary"].markdown(),
        on_device=comparison.peak_kind == "process_vram_bytes",
        **hardware([each.records for each in (comparison, *others)], tables),
    )


def _template() -> jinja2.Template:
    text = files("quantlab.reporting").joinpath("templates", TEMPLATE).read_text(encoding="utf-8")
    environment = jinja2.Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        finalize=_inert,
    )
    return environment.from_string(text)


def _inert(value: Any) -> Any:
    """Everything that the template prints, but what is markdown already."""
    return markdown(value) if isinstance(value, str) and not isinstance(value, Markdown) else value


def _caveat(records: ModelRecords) -> str:
    """What a reader must know of the reference before any number: the recipe's own words, else that it was
    quantized already."""
    own = " ".join(records.recipe.caveat.split())
    stored_as = records.source.quantized_as if records.source else None
    if not stored_as or stored_as in own:
        return own
    return (
        f"The weights of this reference were quantized once already ({stored_as}) and dequantized. A"
        " quantizer on the same grid looks nearly free of loss here; on a model of full precision it would"
        " not."
        f" {own}".rstrip()
    )


def _rounding_limit(comparison: Comparison) -> str:
    """From where a variant is suspicious, in words; empty where rounding was not measured."""
    measured = any(variant.nearest.rounded_nats is not None for variant in comparison.variants.values())
    return f"{SUSPICIOUS_TIMES:g} times rounding's + {NOISE_NATS:g} nats" if measured else ""


def _items(margin_points: float) -> dict[str, str]:
    """How many unchanged items decide at the margin: by the verdict's interval, and by an exact one-sided
    bound."""
    exact = ceil(log(0.05) / log(1 - margin_points / 100)) if margin_points < 100 else 1
    return {
        "no_change_items": f"{items_to_decide(Counts(1, 0, 0), margin_points):,}",
        "rule_of_three": f"{exact:,}",
    }


def _windows(comparison: Comparison) -> str:
    used = sorted(
        {
            (record.windows, record.window_tokens)
            for _, record in measured_sensitivities(comparison)
            if record.windows
        },
        key=str,
    )
    return (
        f", over the first {' or '.join(f'{count} windows of {length} tokens' for count, length in used)}"
        if used
        else ""
    )
