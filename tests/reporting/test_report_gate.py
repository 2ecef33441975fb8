"""The gate: what passes, what fails, and how it ends."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from click.testing import CliRunner
from madeup import MODEL, write_cell, write_recipe

from quantlab.cli import main
from quantlab.cli.check import command


@pytest.fixture
def report(workspace: Path) -> Path:
    return workspace / "reports" / MODEL


def _run(report: Path, *arguments: str) -> tuple[int, dict]:
    done = CliRunner().invoke(command, [str(report), *arguments, "--json"])
    return done.exit_code, json.loads(done.stdout)


def test_a_wide_margin_passes_and_a_narrow_one_does_not(report: Path) -> None:
    code, found = _run(report, "--max-drop", "50", "--variant", "gguf-8", "--variant", "gptq-3")
    assert (
        code == 0 and found["passed"] and [row["verdict"] for row in found["judged"]] == ["within margin"] * 2
    )


def test_a_drop_above_the_margin_is_worse(small: Path) -> None:
    path = small / "data" / "gptq-2" / "quantize.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"collapsed": False}))
    code, found = _run(small, "--max-drop", "1", "--variant", "gptq-2")
    assert code == 1 and not found["passed"] and found["judged"][0]["verdict"] == "worse"


def test_undecided_fails_unless_allowed(report: Path) -> None:
    assert _run(report, "--max-drop", "1", "--variant", "gguf-8")[0] == 1
    code, found = _run(report, "--max-drop", "1", "--variant", "gguf-8", "--allow-undecided")
    assert code == 0 and found["judged"][0]["verdict"] == "undecided"


def test_what_was_not_measured_fails_with_its_reason(report: Path) -> None:
    code, found = _run(report, "--max-drop", "50")
    missing = [row for row in found["judged"] if row["verdict"] == "not measured"]
    assert code == 1 and missing and all(row["reason"] and not row["passed"] for row in missing)


@pytest.mark.parametrize(
    "arguments",
    [
        "--max-drop 1 --task nope",
        "--max-drop 1 --variant nope-4",
        "--max-drop 1 --variant baseline-16",
        "--max-drop 1 --variant gguf-8 --variant baseline-16",
        *(f"--max-drop {value}" for value in ("0", "-1", "nan", "inf", "-inf", "1e999", "101", "one", "")),
        "",
    ],
)
def test_misuse_ends_with_2_and_one_line(report: Path, arguments: str) -> None:
    done = CliRunner().invoke(main, ["check", str(report), *arguments.split()])
    assert done.exit_code == 2 and done.stdout == ""
    assert done.stderr.startswith("quantlab: ") and done.stderr.count("\n") == 1


def test_another_folder_ends_with_2(tmp_path: Path) -> None:
    assert CliRunner().invoke(command, [str(tmp_path), "--max-drop", "1"]).exit_code == 2


def test_a_task_of_the_recipe_that_nobody_ran_fails(tmp_path: Path) -> None:
    write_recipe(tmp_path)
    for slug in ("baseline-16", "gguf-8"):
        write_cell(tmp_path, slug, tasks=("piqa",))
    folder = tmp_path / "reports" / MODEL
    code, found = _run(folder, "--max-drop", "50")
    assert (
        code == 1
        and [row["verdict"] for row in found["judged"]] == ["not measured"]
        and "arc_easy" in found["judged"][0]["reason"]
    )
    assert _run(folder, "--max-drop", "50", "--task", "piqa")[0] == 0
    assert _run(folder, "--max-drop", "50", "--task", "arc_easy", "--allow-undecided")[0] == 1


def test_a_copied_folder_is_judged_alike(report: Path, tmp_path: Path) -> None:
    copy = tmp_path / "artifact"
    shutil.copytree(report, copy)
    arguments = ("--max-drop", "5", "--variant", "gguf-8", "--variant", "gptq-2")
    assert _run(copy, *arguments) == _run(report, *arguments)
    (copy / "recipe.yaml").unlink()
    done = CliRunner().invoke(command, [str(copy), "--max-drop", "5"])
    assert done.exit_code == 2 and "recipe.yaml" in done.output


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A report of a recipe that asks for three variants, of which two were run."""
    write_recipe(tmp_path)
    for slug in ("baseline-16", "gguf-8", "gptq-2"):
        write_cell(tmp_path, slug)
    path = tmp_path / "recipes" / f"{MODEL}.yaml"
    asked = {"baseline-16": {}, "gguf-8": {}, "gptq-4": {}, "gptq-2": {}}
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"variants": asked}))
    return tmp_path / "reports" / MODEL


@pytest.mark.parametrize(
    "arguments",
    [(), ("--variant", "gptq-4"), ("--variant", "gptq-4", "--task", "piqa"), ("--allow-undecided",)],
)
def test_a_variant_of_the_recipe_without_records_is_not_measured_and_fails(
    small: Path, arguments: tuple[str, ...]
) -> None:
    code, found = _run(small, "--max-drop", "50", *arguments)
    (missing,) = [row for row in found["judged"] if row["variant"] == "gptq-4"]
    assert code == 1 and missing["verdict"] == "not measured" and not missing["passed"]
    assert "the evaluate stage has left no record" in missing["reason"]


def test_it_fails_in_a_copy_of_the_folder_alone_as_well(small: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere" / "artifact"
    shutil.copytree(small, copy)
    shutil.copy(tmp_path / "recipes" / f"{MODEL}.yaml", copy / "recipe.yaml")
    code, found = _run(copy, "--max-drop", "50")
    assert (
        code == 1 and {row["variant"]: row["verdict"] for row in found["judged"]}["gptq-4"] == "not measured"
    )


@pytest.mark.parametrize("margin", ["1", "100"])
def test_a_collapsed_variant_never_passes(small: Path, margin: str) -> None:
    code, found = _run(small, "--max-drop", margin, "--allow-undecided", "--variant", "gptq-2")
    assert code == 1 and [(row["verdict"], row["passed"]) for row in found["judged"]] == [
        ("collapsed", False)
    ]
    assert found["judged"][0]["reason"].startswith("collapsed: its perplexity")


def test_it_stays_collapsed_where_another_stage_failed(small: Path) -> None:
    path = small / "data" / "gptq-2" / "measure.json"
    failed = json.loads(path.read_text()) | {
        "failure": {"kind": "crashed", "reason": "x"},
        "memory": None,
        "speed": None,
    }
    path.write_text(json.dumps(failed))
    assert _run(small, "--max-drop", "100", "--variant", "gptq-2")[1]["judged"][0]["verdict"] == "collapsed"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_item_whose_result_is_no_number_is_not_measured(small: Path, value: float) -> None:
    path = small / "data" / "gguf-8" / "samples.parquet"
    frame = pd.read_parquet(path)
    frame.loc[frame.index[frame["metric"] == "acc_norm"][0], "value"] = value
    frame.to_parquet(path)
    code, found = _run(small, "--max-drop", "100", "--allow-undecided", "--variant", "gguf-8")
    assert code == 1 and [row["verdict"] for row in found["judged"]] == ["not measured"]
    assert "the results of 1 of 100 items are infinite or not a number" in found["judged"][0]["reason"]
