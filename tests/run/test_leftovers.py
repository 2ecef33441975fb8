"""What a killed run leaves is put in order, and nothing that a living process holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from quantlab.errors import QuantlabError
from quantlab.run.leftovers import require_writable, tidy
from quantlab.run.workspace import Workspace


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / ".dvc" / "tmp").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def pids() -> Iterator[dict[str, int]]:
    """A process that is gone, one that lives and is no DVC (its number was given away again), and one that
    is."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    other = subprocess.Popen(["sleep", "60"])
    dvc = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "dvc", "repro"])
    yield {"gone": gone.pid, "other": other.pid, "dvc": dvc.pid}
    for process in (other, dvc):
        process.kill()
        process.wait()


def test_locks_of_processes_that_are_gone_are_released(root: Path, pids: dict[str, int]) -> None:
    holder = {name: {"pid": pid, "cmd": "dvc repro"} for name, pid in pids.items()}
    path = root / ".dvc" / "tmp" / "rwlock"
    path.write_text(
        json.dumps({"write": {f"/{n}": h for n, h in holder.items()}, "read": {"/r": list(holder.values())}})
    )
    tidy(root)
    assert json.loads(path.read_text()) == {"write": {"/dvc": holder["dvc"]}, "read": {"/r": [holder["dvc"]]}}


@pytest.mark.parametrize("text", ["", '{"write": {"/a": {"pid"', "[]"])
def test_a_lock_that_was_cut_is_removed(root: Path, text: str) -> None:
    (root / ".dvc" / "tmp" / "rwlock").write_text(text)
    tidy(root)
    assert not (root / ".dvc" / "tmp" / "rwlock").exists()


@pytest.mark.parametrize(
    ("text", "stays"),
    [("schema: '2.0'\nstages: {}\n", True), ("", False), ("schema: '2.0'\nstages:\n  'a", False)],
)
def test_a_dvc_lock_that_was_cut_is_removed(root: Path, text: str, stays: bool) -> None:
    (root / "dvc.lock").write_text(text)
    tidy(root)
    assert (root / "dvc.lock").exists() == stays


def test_a_workspace_that_cannot_be_written_is_one_line() -> None:
    with pytest.raises(
        QuantlabError, match=r"^cannot write in /proc/nowhere: .*; name another folder with --workspace$"
    ):
        require_writable(Path("/proc/nowhere"))
    with (
        pytest.raises(QuantlabError, match=r"^cannot write in /proc/nowhere: "),
        Workspace(Path("/proc/nowhere")).held(print),
    ):
        pass


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(QuantlabError, match=r"^cannot write in .*: No space left on device; make room$"):
        require_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []
