"""`quantlab show`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from quantlab.records import DivergenceRecord, Estimate, Failure, MeasureRecord
from quantlab.workspace.checkpoint import FileEntry, Manifest, write_manifest
from quantlab.workspace.results import write_record


@pytest.fixture
def measured(workspace: Path) -> Path:
    """The workspace with a checkpoint of one variant and two of its records."""
    folder = workspace / "checkpoints" / "tiny" / "bitsandbytes-4"
    folder.mkdir(parents=True)
    files = {"model.safetensors": FileEntry(bytes=2_500_000, sha256="ab" * 32)}
    write_manifest(
        folder, Manifest(model="tiny", variant="bitsandbytes-4", method="bitsandbytes", bits=4, files=files)
    )
    perplexity = Estimate(value=21.25, standard_error=0.5, n=64)
    write_record(workspace, DivergenceRecord(model="tiny", variant="bitsandbytes-4", perplexity=perplexity))
    failure = Failure(kind="out_of_memory", reason="it needs 3 GB")
    write_record(workspace, MeasureRecord(model="tiny", variant="bitsandbytes-4", failure=failure))
    return workspace


def test_settings_manifest_and_records_are_shown(measured: Path, quantlab: Callable[..., Result]) -> None:
    shown = quantlab("show", "bitsandbytes-4").stdout
    for part in ("tiny--bitsandbytes-4", "fp4", "2.5 MB", "21.25 ± 0.5 (n = 64)", "it needs 3 GB"):
        assert part in shown


def test_the_same_is_one_json_object(measured: Path, quantlab: Callable[..., Result]) -> None:
    found = json.loads(quantlab("show", "bitsandbytes-4", "--json").stdout)
    (model,) = found["models"]
    assert model["settings"]["type"] == "fp4"
    assert model["manifest"]["files"]["model.safetensors"]["bytes"] == 2_500_000
    assert set(model["records"]) == {"measure", "diverge"}


def test_a_variant_that_was_not_run_shows_its_settings(
    workspace: Path, quantlab: Callable[..., Result]
) -> None:
    shown = quantlab("show", "baseline-16").stdout
    assert "no checkpoint" in shown
    assert "nothing measured" in shown


def test_a_workspace_can_be_named(
    measured: Path, quantlab: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert quantlab("show", "bitsandbytes-4", "--workspace", str(measured)).exit_code == 0


def test_what_is_not_there_is_refused(workspace: Path, refused: Callable[..., str]) -> None:
    assert "known are bitsandbytes-4, " in refused("show", "bitsandbytes-8")
    assert "unknown model" in refused("show", "bitsandbytes-4", "--model", "huge")
    assert "is not a variant" in refused("show", "bitsandbytes")


def test_a_damaged_manifest_is_refused(measured: Path, refused: Callable[..., str]) -> None:
    (measured / "checkpoints" / "tiny" / "bitsandbytes-4" / "manifest.json").write_text("{}")
    assert "is not a manifest" in refused("show", "bitsandbytes-4")


def test_outside_a_workspace_the_workspaces_here_are_named(here: Path, refused: Callable[..., str]) -> None:
    assert "is not a workspace" in refused("show", "gptq-4")
    (here / "runs" / "tiny" / "recipes").mkdir(parents=True)
    assert "runs/tiny" in refused("show", "gptq-4")
