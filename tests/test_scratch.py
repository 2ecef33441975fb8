"""Temporary folders lie in the workspace, and those of killed processes are gone at the next start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from quantlab.files import folder_beside, write_text
from quantlab.scratch import FOLDER, scratch, sweep

KILLED = """
import os, signal
from pathlib import Path
from quantlab.files import folder_beside
from quantlab.scratch import scratch
root = Path({root!r})
with scratch(root) as folder, folder_beside(root / "checkpoints" / "m" / "gguf-8") as partial:
    (folder / "quantlab-offload-x").mkdir()
    (folder / "quantlab-offload-x" / "weights").write_bytes(bytes(1000))
    (partial / "model.gguf").write_bytes(bytes(1000))
    os.utime(partial, (1, 1))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def _left(root: Path) -> list[Path]:
    return [
        path for path in root.rglob("*") if path.name not in (".lock", ".quantlab", "tmp", "checkpoints", "m")
    ]


def test_what_a_killed_process_left_is_swept_at_the_next_start(tmp_path: Path) -> None:
    code = subprocess.run([sys.executable, "-c", KILLED.format(root=str(tmp_path))], check=False).returncode
    assert code == -signal.SIGKILL and len(_left(tmp_path)) == 6
    with scratch(tmp_path):
        pass
    assert _left(tmp_path) == []


def test_what_a_living_process_holds_stays(tmp_path: Path) -> None:
    with scratch(tmp_path) as folder, folder_beside(tmp_path / "models" / "m" / "gguf") as partial:
        (partial / ".partial-inside").mkdir()
        os.utime(partial / ".partial-inside", (1, 1))
        os.utime(partial, (1, 1))
        assert sweep(tmp_path) == [] and folder.is_dir() and (partial / ".partial-inside").is_dir()
    assert _left(tmp_path / "models") == []


def test_libraries_are_sent_there_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(tempfile.mkdtemp(prefix="q", dir="/tmp"))  # short enough for the sockets that libraries make
    monkeypatch.delenv(FOLDER, raising=False)
    before = tempfile.gettempdir()
    try:
        with scratch(root) as folder:
            assert tempfile.gettempdir() == os.environ["TMPDIR"] == os.environ[FOLDER] == str(folder)
        assert tempfile.gettempdir() == before and FOLDER not in os.environ and not folder.exists()
    finally:
        for path in sorted(root.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        root.rmdir()


def test_a_file_that_a_kill_cut_is_swept(tmp_path: Path) -> None:
    cut = tmp_path / "reports" / "m" / "data" / "gguf-8" / ".partial-tasks.json-abc"
    write_text(cut.with_name("tasks.json"), "{}")
    cut.write_text("{")
    os.utime(cut, (1, 1))
    assert sweep(tmp_path) == [cut] and [path.name for path in cut.parent.iterdir()] == ["tasks.json"]
