"""`quantlab clean` counts each file once, and removes only what is its own."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

CHECKPOINT, OTHER = 1000, 200


@pytest.fixture
def full(workspace: Path, tmp_path: Path) -> Path:
    """A workspace with a checkpoint that DVC's cache holds too, a cached record, a run, a report, and a
    download."""
    weights = workspace / "checkpoints" / "tiny" / "gptq-4" / "model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"w" * CHECKPOINT)
    cache = workspace / ".dvc" / "cache" / "files"
    cache.mkdir(parents=True)
    os.link(weights, cache / "ab")
    weights.chmod(0o444)
    report = workspace / "reports" / "tiny" / "data" / "gptq-4" / "measure.json"
    report.parent.mkdir(parents=True)
    report.write_bytes(b"r" * OTHER)
    os.link(report, cache / "cd")
    run = workspace / "runs" / "one"
    (run / "models").mkdir(parents=True)
    (run / "dvc.yaml").write_text("cmd: quantlab probe")
    (run / "models" / "f16.gguf").write_bytes(b"g" * OTHER)
    download = tmp_path / "cache" / "pypi" / "package"
    download.mkdir(parents=True)
    (download / "file").write_bytes(b"p" * OTHER)
    (tmp_path / "cache" / "mine.txt").write_text("not quantlab's")
    return workspace


def cleaned(quantlab: Callable[..., Result], *options: str) -> dict[str, Any]:
    result = quantlab("clean", *options, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_a_file_with_two_names_is_counted_once(full: Path, quantlab: Callable[..., Result]) -> None:
    found = cleaned(quantlab)
    sizes = {row["name"]: (row["bytes"], row["freed_bytes"]) for row in found["folders"]}
    assert sizes == {
        "checkpoints": (CHECKPOINT, 0),
        ".dvc/cache": (CHECKPOINT + OTHER, 0),
        "runs/one/models": (OTHER, OTHER),
        "cache/pypi": (OTHER, OTHER),
    }
    assert found["total_bytes"] == CHECKPOINT + 3 * OTHER
    assert found["removed"] == []


def test_removing_checkpoints_takes_their_names_in_the_cache_too(
    full: Path, quantlab: Callable[..., Result]
) -> None:
    found = cleaned(quantlab, "--checkpoints", "--yes")
    assert found["freed_bytes"] == CHECKPOINT
    assert not (full / "checkpoints").exists()
    assert [path.name for path in (full / ".dvc" / "cache" / "files").iterdir()] == ["cd"]
    assert (full / "reports" / "tiny" / "data" / "gptq-4" / "measure.json").exists()


def test_removing_the_cache_keeps_checkpoints_and_reports(
    full: Path, quantlab: Callable[..., Result]
) -> None:
    found = cleaned(quantlab, "--cache", "--yes")
    assert sorted(found["removed"]) == [".dvc/cache", "cache/pypi"]
    assert found["freed_bytes"] == OTHER
    assert (full / "checkpoints" / "tiny" / "gptq-4" / "model.safetensors").exists()


def test_removing_all_keeps_recipes_reports_and_what_is_not_quantlabs(
    full: Path, quantlab: Callable[..., Result], tmp_path: Path
) -> None:
    found = cleaned(quantlab, "--all", "--yes")
    assert found["freed_bytes"] == CHECKPOINT + 2 * OTHER
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()} - {
        "own.yaml"
    }
    assert left == {
        "cache/mine.txt",
        "here/dvc.yaml",
        "here/recipes/tiny.yaml",
        "here/reports/tiny/data/gptq-4/measure.json",
        "here/runs/one/dvc.yaml",
    }
    assert cleaned(quantlab)["folders"] == []


@pytest.mark.parametrize(
    "options", [("--all",), ("--cache",), ("--checkpoints",), ("--all", "--cache", "--checkpoints")]
)
def test_no_option_removes_a_record_of_this_or_another_machine(
    full: Path, quantlab: Callable[..., Result], options: tuple[str, ...]
) -> None:
    merged = [
        place / "imported" / "gpu" / "tiny" / "data" / "gptq-4" / "measure.json"
        for place in (full, full / "runs" / "one")
    ]
    own = [
        full / "reports" / "tiny" / "data" / "gptq-4" / "measure.json",
        full / "runs" / "one" / "reports" / "tiny" / "data" / "x.json",
    ]
    for path in (*merged, *own):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    found = cleaned(quantlab, *options, "--yes")
    assert all(path.read_text() == "{}" for path in (*merged, *own))
    assert not [name for name in found["removed"] if "imported" in name or "reports" in name]


def test_folders_of_the_same_names_outside_a_workspace_are_not_ours(
    here: Path, quantlab: Callable[..., Result]
) -> None:
    for name in ("checkpoints", "models"):
        (here / name).mkdir()
        (here / name / "mine").write_text("precious")
    assert cleaned(quantlab, "--all", "--yes")["removed"] == []
    assert (here / "models" / "mine").exists()


def test_nothing_behind_a_link_is_removed(
    full: Path, quantlab: Callable[..., Result], tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("x")
    (full / "models").symlink_to(elsewhere)
    (full / "checkpoints" / "link").symlink_to(elsewhere)
    cleaned(quantlab, "--all", "--yes")
    assert (elsewhere / "precious").exists()
    assert (full / "models").is_symlink()


def test_a_cache_that_reports_are_links_into_is_kept(full: Path, quantlab: Callable[..., Result]) -> None:
    (full / "reports" / "link.json").symlink_to(full / ".dvc" / "cache" / "files" / "cd")
    result = quantlab("clean", "--all", "--yes")
    assert result.exit_code == 2
    assert "dvc checkout --relink" in result.stderr
    assert (full / "checkpoints").exists()


def test_a_question_that_nobody_answers_is_a_refusal(full: Path, quantlab: Callable[..., Result]) -> None:
    result = quantlab("clean", "--all")
    assert result.exit_code == 2
    assert "add --yes" in result.stderr
    assert (full / "checkpoints").exists()


def test_a_person_reads_the_sizes_and_what_was_freed(full: Path, quantlab: Callable[..., Result]) -> None:
    assert "counted once" in quantlab("clean").stdout
    assert "removed checkpoints" in quantlab("clean", "--checkpoints", "--yes").stdout
    assert "nothing to remove" in quantlab("clean", "--checkpoints", "--yes").stdout
