"""The command line in this process, in an empty folder, with an empty catalogue and cache of the user's
own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from quantlab.cli import main

Run = Callable[..., Result]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, empty."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("QUANTLAB_CACHE", str(tmp_path / "cache"))
    own = tmp_path / "own.yaml"
    own.write_text("")
    monkeypatch.setenv("QUANTLAB_MODELS", str(own))
    return folder


@pytest.fixture
def quantlab(here: Path) -> Run:
    """Run a command line."""

    def run(*arguments: str, input: str | None = None) -> Result:  # noqa: A002 - as CliRunner names it
        return CliRunner().invoke(main, list(arguments), input=input)

    return run


@pytest.fixture
def refused(quantlab: Run) -> Callable[..., str]:
    """Run a command line that must end with code 2 and one line; the same line is the JSON object's
    message."""

    def run(*arguments: str) -> str:
        result = quantlab(*arguments)
        assert result.exit_code == 2, result.output
        assert result.stdout == ""
        assert result.stderr.startswith("quantlab: ")
        assert result.stderr.count("\n") == 1
        scripted = quantlab(*arguments, "--json")
        assert scripted.exit_code == 2
        error: dict[str, Any] = json.loads(scripted.stdout)["error"]
        assert f"quantlab: {error['message']}\n" == scripted.stderr
        return result.stderr

    return run


@pytest.fixture
def workspace(here: Path) -> Path:
    """A workspace with one model's recipe."""
    (here / "dvc.yaml").write_text("stages:\n  probe:\n    cmd: quantlab probe\n")
    (here / "recipes").mkdir()
    (here / "recipes" / "tiny.yaml").write_text(
        "model: tiny\nsource: {path: weights}\nvariants:\n  bitsandbytes-4: {type: fp4}\n  baseline-16:\n"
    )
    return here
