"""Commands that begin at a server of imported libraries behave as those of a new interpreter."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import _warm
import pytest

from quantlab import processes


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A server, which `processes.run` uses."""
    monkeypatch.setattr(processes, "run", processes.run)  # put back afterwards
    path = tmp_path / "warm"
    pid = _warm.serve(path)
    _warm.use(path)
    yield path
    _warm.stop(pid)


def module(folder: Path, text: str) -> list[str]:
    """A command that runs a module of this text."""
    (folder / "said.py").write_text(text)
    return [sys.executable, "-P", "-m", "said", "one", "two"]


def test_a_command_has_its_arguments_environment_and_exit_code(server: Path, tmp_path: Path) -> None:
    text = "import os, sys; open(os.environ['SAID'], 'w').write(' '.join(sys.argv[1:])); sys.exit(7)"
    command = module(tmp_path, text)
    environment = {"SAID": str(tmp_path / "said.txt"), "PYTHONPATH": str(tmp_path)}
    with pytest.MonkeyPatch.context() as context:
        context.syspath_prepend(str(tmp_path))
        pid = _warm.serve(tmp_path / "again")
        _warm.use(tmp_path / "again")
        done = processes.run(command, env=environment)
        _warm.stop(pid)
    assert done.returncode == 7
    assert (tmp_path / "said.txt").read_text() == "one two"


def test_a_module_that_is_missing_ends_with_1(server: Path) -> None:
    assert processes.run([sys.executable, "-m", "no_such_module"], env={}).returncode == 1


def test_other_commands_begin_as_ever(server: Path) -> None:
    assert processes.run(["sh", "-c", "exit 3"]).returncode == 3
