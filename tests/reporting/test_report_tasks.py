"""What a report says of tasks that failed, of answers that were cut and of what was scored in."""

from __future__ import annotations

from pathlib import Path

import pytest
from madeup import MODEL, write_cell, write_recipe

from quantlab.comparison.compare import compare
from quantlab.comparison.load import load_model
from quantlab.records import Failure, TaskRecord
from quantlab.reporting.accuracy import accuracy_table
from quantlab.reporting.cautions import cautions
from quantlab.reporting.provenance import provenance
from quantlab.workspace.results import read_record, record_path, write_record

SLUGS = ("baseline-16", "gptq-4")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_recipe(tmp_path)
    for slug in SLUGS:
        write_cell(tmp_path, slug, items=20)
    return tmp_path


def _change(root: Path, slug: str, task: str | None = None, **update: object) -> None:
    record = read_record(record_path(root, MODEL, slug, "evaluate"), TaskRecord)
    assert record
    if task:
        update = {"tasks": record.tasks | {task: record.tasks[task].model_copy(update=update)}}
    write_record(root, record.model_copy(update=update))


def _fail(root: Path, slug: str, task: str) -> None:
    record = read_record(record_path(root, MODEL, slug, "evaluate"), TaskRecord)
    assert record
    kept = {name: result for name, result in record.tasks.items() if name != task}
    _change(
        root,
        slug,
        tasks=kept,
        failed={task: Failure(kind="unsupported", reason=f"{task}: item 7 of {task}: too long")},
    )


def test_a_task_that_failed_has_a_row_with_its_reason_and_the_others_their_numbers(root: Path) -> None:
    _fail(root, "gptq-4", "piqa")
    records = load_model(root, MODEL)
    rows = {(row.values["task"], row.values["variant"]): row for row in accuracy_table(compare(records)).rows}
    bad = rows["piqa", "gptq-4"]
    assert bad.values["score"] is None and "item 7 of piqa: too long" in bad.missing["score"]
    assert (
        "item 7 of piqa" in bad.missing["drop_points"]
        and "item 7 of piqa" in rows["mean", "gptq-4"].missing["drop_points"]
    )
    assert (
        rows["arc_easy", "gptq-4"].values["drop_points"] is not None
        and rows["piqa", "baseline-16"].values["score"] is not None
    )
    assert any(
        text.startswith("gptq-4 has no result of piqa: not supported: piqa: item 7")
        for text in cautions(compare(records))
    )


def test_a_task_that_failed_everywhere_is_still_shown(root: Path) -> None:
    for slug in SLUGS:
        _fail(root, slug, "piqa")
    rows = {
        (row.values["task"], row.values["variant"]): row
        for row in accuracy_table(compare(load_model(root, MODEL))).rows
    }
    assert all("item 7 of piqa" in rows["piqa", slug].missing["score"] for slug in SLUGS)
    assert rows["arc_easy", "gptq-4"].values["drop_points"] is not None


def test_the_share_of_cut_answers_is_a_column_where_answers_are_generated(root: Path) -> None:
    shown = {column.header for column in accuracy_table(compare(load_model(root, MODEL))).columns}
    assert "answers cut at the limit" not in shown
    tokens = read_record(record_path(root, MODEL, "gptq-4", "evaluate"), TaskRecord).tasks["piqa"].score  # type: ignore[union-attr]
    _change(root, "gptq-4", "piqa", answer_tokens=tokens, truncated_share=0.25)
    table = accuracy_table(compare(load_model(root, MODEL)))
    row = next(row for row in table.rows if (row.values["task"], row.values["variant"]) == ("piqa", "gptq-4"))
    assert (
        "answers cut at the limit" in {column.header for column in table.columns}
        and row.values["truncated_share"] == 0.25
    )


def test_the_method_says_what_was_scored_in(root: Path) -> None:
    before = next(fact.text for fact in provenance(load_model(root, MODEL)) if fact.what == "Tasks")
    assert "Scored in" not in before, "older records do not say it"
    _change(root, "baseline-16", scored_in="float32")
    _change(root, "gptq-4", scored_in="bfloat16, log-probabilities in float32")
    after = next(fact.text for fact in provenance(load_model(root, MODEL)) if fact.what == "Tasks")
    assert (
        after == before + ". Scored in float32: baseline-16; bfloat16, log-probabilities in float32: gptq-4"
    )
