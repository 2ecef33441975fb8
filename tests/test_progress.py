"""A log that cannot be written loses lines and stops nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

NOISY = """
import sys
from pathlib import Path
from quantlab.progress import noise_to
with noise_to(Path({log!r})) as progress:
    print("noise")
    print("more noise", file=sys.stderr, flush=True)
    sys.stdout.flush()
    progress.say("said")
print("after")
"""


def _run(log: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", NOISY.format(log=str(log))], capture_output=True, text=True, check=False
    )


def test_noise_goes_to_the_log(tmp_path: Path) -> None:
    done = _run(tmp_path / "logs" / "a.log")
    assert (done.returncode, done.stdout, done.stderr) == (0, "after\n", "said\n")
    assert sorted((tmp_path / "logs" / "a.log").read_text().splitlines()) == ["more noise", "noise"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
def test_a_log_on_a_full_disk_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.log").symlink_to("/dev/full")
    done = _run(tmp_path / "a.log")
    assert (done.returncode, done.stdout, done.stderr) == (0, "after\n", "said\n")


def test_a_log_that_cannot_be_opened_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where the folder of logs would be")
    done = _run(tmp_path / "logs" / "a.log")
    assert done.returncode == 0 and done.stdout == "after\n"
    assert done.stderr.splitlines() == [
        f"quantlab: {tmp_path}/logs/a.log cannot be written (File exists): the libraries' own output is lost",
        "said",
    ]
