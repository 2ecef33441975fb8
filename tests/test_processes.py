"""A process that is asked to end, or killed, takes all that it started with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from quantlab import processes
from quantlab.processes import Ended, ended_by_signals

PARENT = """
import signal, sys
from quantlab.processes import Ended, ended_by_signals, run
for name in ("SIGINT", "SIGHUP"):  # the tests may have been begun with these ignored, as by nohup
    signal.signal(signal.Signals[name], signal.SIG_DFL)
try:
    with ended_by_signals():
        run(["sh", "-c", "{script}"])
except Ended as error:
    sys.exit(error.exit_code)
"""
STAGE = """
import os, time
from pathlib import Path
from quantlab.processes import Ended, end_with_dvc, ended_by_signals
end_with_dvc()
try:
    with ended_by_signals():
        Path("pids").write_text(f"{os.getpid()}\\n")
        time.sleep(60)
except Ended as error:
    Path("said").write_text(str(error))
"""
TREE = "sleep 300 & sleep 300 & echo $! $$ > pids; wait"


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs a shell that runs two others."""
    process = subprocess.Popen([sys.executable, "-c", PARENT.format(script=TREE)], cwd=tmp_path)
    _until(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text().endswith("\n"))
    yield process
    process.kill()
    process.wait()


def _until(true: object, seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():  # type: ignore[operator]
            return True
        time.sleep(0.02)
    return False


def _living(folder: Path) -> list[int]:
    pids = [int(word) for word in (folder / "pids").read_text().split()]
    return [
        pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    ]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_ends_children_and_grandchildren(
    parent: subprocess.Popen[bytes], name: str, tmp_path: Path
) -> None:
    assert len(_living(tmp_path)) == 2
    parent.send_signal(signal.Signals[name])
    assert parent.wait(timeout=60) == 128 + signal.Signals[name]
    assert _living(tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells a child of its parent's death")
def test_a_timeout_ends_children_and_grandchildren(tmp_path: Path) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        processes.run(["sh", "-c", TREE], timeout=2, cwd=tmp_path)
    assert len((tmp_path / "pids").read_text().split()) == 2
    assert _until(lambda: not _living(tmp_path), 20)
    assert processes.run(["sh", "-c", "exit 3"], timeout=60).returncode == 3


def test_the_death_of_the_parent_ends_its_child(parent: subprocess.Popen[bytes], tmp_path: Path) -> None:
    shell = int((tmp_path / "pids").read_text().split()[1])
    parent.kill()
    assert _until(lambda: shell not in _living(tmp_path))
    for pid in _living(tmp_path):
        psutil.Process(pid).kill()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells a child of its parent's death")
@pytest.mark.parametrize("by_dvc", [True, False])
def test_a_stage_ends_with_its_dvc_and_a_command_does_not_end_with_its_shell(
    by_dvc: bool, tmp_path: Path
) -> None:
    (tmp_path / "stage.py").write_text(STAGE)
    pipeline = "import subprocess, sys; subprocess.run([sys.executable, 'stage.py'])"
    environment = os.environ | ({"DVC_STAGE": "measure@m--gguf-8"} if by_dvc else {})
    parent = subprocess.Popen([sys.executable, "-c", pipeline], cwd=tmp_path, env=environment)
    assert _until(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text().endswith("\n"))
    parent.kill()
    parent.wait()
    assert _until(lambda: not _living(tmp_path), 60 if by_dvc else 0.5) == by_dvc
    assert not by_dvc or (tmp_path / "said").read_text() == "interrupted by SIGTERM"
    for pid in _living(tmp_path):
        psutil.Process(pid).kill()


def test_a_stage_whose_dvc_ended_before_it_could_ask_ends_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_STAGE", "measure@m--gguf-8")
    monkeypatch.setenv("QUANTLAB_STAGE", "")
    monkeypatch.delenv("QUANTLAB_STAGE")
    monkeypatch.setattr(processes, "end_with_parent", lambda number: None)
    monkeypatch.setattr(processes, "_is_orphan", lambda: True)
    with pytest.raises(Ended, match="interrupted by SIGTERM"):
        processes.end_with_dvc()


def test_a_signal_that_is_ignored_stays_ignored_and_handlers_come_back() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ended_by_signals():
            signal.raise_signal(signal.SIGHUP)
            with pytest.raises(Ended, match="interrupted by SIGTERM"):
                signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)
