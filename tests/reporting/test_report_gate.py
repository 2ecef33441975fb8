"""The gate: what passes, what fails, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from madeup import MODEL

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
