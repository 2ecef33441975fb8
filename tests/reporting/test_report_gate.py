"""The gate: what passes, what fails, and how it ends."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from madeup import MODEL, write_cell, write_recipe

from quantlab.cli.check import command


@pytest.fixture
def report(workspace: Path) -> Path:
    return workspace / "reports" / MODEL


def _run(report: Path, *arguments: str) -> tuple[int, dict]:
    done = CliRunner().invoke(command, [str(report), *arguments, "--json"])
    return done.exit_code, json.loads(done.stdout)


def test_a_wide_margin_passes_and_a_narrow_one_does_not(report: Path) -> None:
    code, found = _run(report, "--max-drop", "50", "--variant", "gguf-8", "--variant", "gptq-2")
    assert code == 0 and found["passed"] and [row["verdict"] for row in found["judged"]] == ["within margin"] * 2
    code, found = _run(report, "--max-drop", "1", "--variant", "gptq-2")
    assert code == 1 and not found["passed"] and found["judged"][0]["verdict"] == "worse"


def test_undecided_fails_unless_allowed(report: Path) -> None:
    assert _run(report, "--max-drop", "1", "--variant", "gguf-8")[0] == 1
    code, found = _run(report, "--max-drop", "1", "--variant", "gguf-8", "--allow-undecided")
    assert code == 0 and found["judged"][0]["verdict"] == "undecided"


def test_what_was_not_measured_fails_with_its_reason(report: Path) -> None:
    code, found = _run(report, "--max-drop", "50")
    missing = [row for row in found["judged"] if row["verdict"] == "not measured"]
    assert code == 1 and missing and all(row["reason"] and not row["passed"] for row in missing)


@pytest.mark.parametrize("arguments", ["--max-drop 1 --task nope", "--max-drop 1 --variant nope-4", "--max-drop 0", ""])
def test_misuse_ends_with_2(report: Path, arguments: str) -> None:
    assert CliRunner().invoke(command, [str(report), *arguments.split()]).exit_code == 2


def test_another_folder_ends_with_2(tmp_path: Path) -> None:
    assert CliRunner().invoke(command, [str(tmp_path), "--max-drop", "1"]).exit_code == 2


def test_a_task_of_the_recipe_that_nobody_ran_fails(tmp_path: Path) -> None:
    write_recipe(tmp_path)
    for slug in ("baseline-16", "gguf-8"):
        write_cell(tmp_path, slug, tasks=("piqa",))
    folder = tmp_path / "reports" / MODEL
    code, found = _run(folder, "--max-drop", "50")
    assert code == 1 and [row["verdict"] for row in found["judged"]] == ["not measured"] and "arc_easy" in found["judged"][0]["reason"]
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
