"""What the report stage writes: the same numbers in every form, whole tables, readable plots, the same bytes
twice."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
from madeup import FAILED, MODEL, NUMBERS, write_cell, write_failure, write_recipe

from quantlab.comparison.compare import compare
from quantlab.comparison.load import load_model
from quantlab.errors import QuantlabError
from quantlab.reporting.accuracy import accuracy_table
from quantlab.reporting.expectations import expectations_table
from quantlab.reporting.making import quantization_table
from quantlab.reporting.memory import memory_table
from quantlab.reporting.speed import speed_table
from quantlab.reporting.summary import summary_table
from quantlab.reporting.table import Table
from quantlab.stages.report import run

TABLES = {
    "summary": summary_table,
    "accuracy": accuracy_table,
    "memory": memory_table,
    "speed": speed_table,
    "quantization": quantization_table,
    "expectations": expectations_table,
}


def markdown_rows(text: str) -> list[list[str]]:
    """Cells of every table line."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


@pytest.fixture(params=TABLES, scope="module")
def table(request: pytest.FixtureRequest, workspace: Path) -> Table:
    made: Table = TABLES[request.param](compare(load_model(workspace, MODEL)))
    return made


def test_markdown_tables_are_rectangular(table: Table, report: Path) -> None:
    text = table.markdown()
    assert {len(cells) for cells in markdown_rows(text)} == {len(table.columns)}
    assert text in (report / "report.md").read_text(encoding="utf-8")


def test_csv_json_and_markdown_hold_the_same_numbers(table: Table, report: Path) -> None:
    as_json = json.loads((report / "tables" / f"{table.name}.json").read_text(encoding="utf-8"))
    as_csv = pd.read_csv(report / "tables" / f"{table.name}.csv", dtype=str, keep_default_na=False)
    shown = markdown_rows(table.markdown())[2:]
    assert len(as_json) == len(as_csv) == len(shown) == len(table.rows)
    for row, from_json, (_, from_csv), cells in zip(
        table.rows, as_json, as_csv.iterrows(), shown, strict=True
    ):
        for key, value in row.values.items():
            assert from_json[key] == value
            number = isinstance(value, int | float) and not isinstance(value, bool)
            assert (
                float(from_csv[key]) == value
                if number
                else from_csv[key] == ("" if value is None else str(value))
            ), key
        for column, cell in zip(table.columns, cells, strict=True):
            values = [from_json[key] for key in column.keys]
            text = column.render(*values).replace("|", "\\|") if values[0] is not None else ""
            assert cell.startswith(text), (column.header, cell)


def test_no_dash_without_a_reason(table: Table) -> None:
    for row in table.rows:
        for column in table.columns:
            if row.values.get(column.keys[0]) is None:
                assert row.missing.get(column.keys[0]), (table.name, row.values["variant"], column.header)


def test_every_footnote_is_marked_and_every_mark_has_one(table: Table) -> None:
    marks = "⁰¹²³⁴⁵⁶⁷⁸⁹"
    text = table.markdown()
    body, notes = text.rsplit("|\n\n", 1) if "|\n\n" in text else (text, "")
    named = {line.split(" ")[0] for line in notes.splitlines()}
    used = {
        mark
        for cells in markdown_rows(body + "|")
        for cell in cells
        for mark in re.findall(f"[{marks}]+", cell)
    }
    assert named == used


@pytest.mark.parametrize("slug", FAILED)
def test_failed_variant_shows_its_reason_and_no_number(slug: str, report: Path) -> None:
    text = (report / "report.md").read_text(encoding="utf-8")
    rows = [cells for cells in markdown_rows(text) if slug in cells]
    assert rows
    for cells in rows:
        rest = [cell for cell in cells if cell not in (slug, "failed", "mean", "piqa", "arc_easy")]
        assert not any(re.search(r"[0-9]", cell) for cell in rest)
        assert rest[0].rstrip("⁰¹²³⁴⁵⁶⁷⁸⁹") in ("not offered", "broken checkpoint")
    assert FAILED[slug].replace("|", "\\|") in text


def test_first_screen(report: Path) -> None:
    text = (report / "report.md").read_text(encoding="utf-8")
    first = text[: text.index("## Warnings")]
    assert first.startswith(f"# {MODEL}")
    assert first.index("12 variants of") < first.index("plots/pareto.svg") < first.index("| variant |")
    assert "**gguf-8** (" in first and "is the smallest below 0.01 nats per token" in first
    assert "and **gguf-4** (" in first and "is the smallest below 0.1 nats per token" in first
    assert "Too few items to decide at 1 point: " in first
    assert "lossless" not in text.lower()


@pytest.mark.parametrize("name", ["pareto", "quality", "accuracy", "decode", "memory"])
def test_plots_are_svg_and_linked(name: str, report: Path) -> None:
    root = ElementTree.parse(report / "plots" / f"{name}.svg").getroot()
    assert root.tag.endswith("svg")
    assert f"(plots/{name}.svg)" in (report / "report.md").read_text(encoding="utf-8")


def test_every_link_leads_somewhere(report: Path) -> None:
    text = (report / "report.md").read_text(encoding="utf-8")
    assert all((report / link).exists() for link in re.findall(r"\]\(([^)]+)\)", text))


def test_metrics_are_the_summarys(report: Path) -> None:
    metrics = json.loads((report / "metrics.json").read_text(encoding="utf-8"))
    assert set(metrics) == set(NUMBERS)
    assert metrics["gguf-4"]["kl_divergence_nats"] == NUMBERS["gguf-4"][1]
    quality = pd.read_csv(report / "dvc" / "quality.csv").set_index("variant")
    assert set(quality.index) == set(NUMBERS)
    assert quality.loc["gptq-2", "perplexity"] == NUMBERS["gptq-2"][2]


def test_the_same_records_give_the_same_bytes(workspace: Path, report: Path) -> None:
    def contents() -> dict[str, bytes]:
        return {
            str(p): p.read_bytes()
            for p in sorted(report.rglob("*"))
            if p.is_file() and "data" not in p.relative_to(report).parts
        }

    before = contents()
    run(workspace, MODEL)
    assert contents() == before
    assert not list(report.glob(".*"))


def test_one_variant_alone_makes_a_report(tmp_path: Path) -> None:
    write_recipe(tmp_path)
    write_cell(tmp_path, "gguf-4", tasks=("piqa",))
    text = run(tmp_path, MODEL).read_text(encoding="utf-8")
    assert "is not measured" in text


def test_only_failures_make_a_report_without_plots(tmp_path: Path) -> None:
    write_recipe(tmp_path)
    write_failure(tmp_path, "awq-2", "awq does not offer 2 bits")
    text = run(tmp_path, MODEL).read_text(encoding="utf-8")
    assert "No Pareto plot" in text
    assert "awq does not offer 2 bits" in text
    assert not list((tmp_path / "reports" / MODEL / "plots").iterdir())
    json.loads((tmp_path / "reports" / MODEL / "metrics.json").read_text(encoding="utf-8"))


def test_without_records_there_is_no_report(tmp_path: Path) -> None:
    write_recipe(tmp_path)
    with pytest.raises(QuantlabError, match="no records"):
        run(tmp_path, MODEL)
