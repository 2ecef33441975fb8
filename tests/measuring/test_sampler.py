"""The sampling process against children whose memory is known, one of them killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from quantlab.measuring import sampling_process as sampling
from quantlab.measuring.sampling_client import SamplingClient, read_samples, sample_file

MIB = 2**20
CHILD = """
import sys, time
held = []
for line in sys.stdin:
    held.append(bytearray(int(line)))
    held[-1][::4096] = b"x" * len(held[-1][::4096])
    print(len(held), flush=True)
"""


@pytest.fixture
def child() -> subprocess.Popen[str]:
    made = subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield made
    made.kill()
    made.communicate()


def _allocate(child: subprocess.Popen[str], size: int) -> None:
    assert child.stdin and child.stdout
    child.stdin.write(f"{size}\n")
    child.stdin.flush()
    child.stdout.readline()


def test_what_a_step_took_is_seen_in_that_step(child: subprocess.Popen[str], tmp_path: Path) -> None:
    with SamplingClient(tmp_path / "samples.json") as sampler:
        sampler.watch(child.pid, "importing")
        _allocate(child, 1)
        sampler.keep("empty")
        sampler.step("loading")
        _allocate(child, 64 * MIB)
        sampler.keep("loaded")
        sampler.step("prefill")
        _allocate(child, 32 * MIB)
        sampler.step("end")
        found = sampler.result()
    assert found and found.empty and found.loaded and found.before
    by_step = {step.step: step for step in found.steps}
    assert list(by_step) == ["importing", "loading", "prefill", "end"]
    assert by_step["loading"].tree_rss_bytes - by_step["importing"].tree_rss_bytes == pytest.approx(
        64 * MIB, abs=2 * MIB
    )
    assert by_step["prefill"].tree_rss_bytes - by_step["loading"].tree_rss_bytes == pytest.approx(
        32 * MIB, abs=2 * MIB
    )
    assert found.loaded.tree_rss_bytes - found.empty.tree_rss_bytes == pytest.approx(64 * MIB, abs=2 * MIB)
    assert (
        found.before.tree_rss_bytes == 0
        and found.peak_vram_bytes is None
        and found.device_change_bytes is None
    )
    if Path("/proc/self/smaps_rollup").exists():
        assert found.peak_above_empty_bytes == pytest.approx(96 * MIB, abs=2 * MIB)
        assert (
            by_step["prefill"].tree_pss_bytes
            and by_step["prefill"].tree_pss_bytes <= by_step["prefill"].tree_rss_bytes
        )


def test_memory_of_a_childs_child_counts(tmp_path: Path) -> None:
    holds = "x = bytearray(b'y') * (64 * 2**20); input()"
    grandchild = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {holds!r}])"
    child = subprocess.Popen([sys.executable, "-c", grandchild], stdin=subprocess.PIPE)
    try:
        with SamplingClient(tmp_path / "samples.json") as sampler:
            sampler.watch(child.pid, "running")
            deadline = time.monotonic() + 10
            found = sampler._look()
            while found and found.tree_rss_bytes < 64 * MIB and time.monotonic() < deadline:
                time.sleep(0.02)
                found = sampler._look()
        assert found and found.tree_rss_bytes > 64 * MIB > psutil.Process(child.pid).memory_info().rss
    finally:
        child.communicate(b"\n")


def test_the_last_look_at_a_killed_process_is_kept(child: subprocess.Popen[str], tmp_path: Path) -> None:
    with SamplingClient(tmp_path / "samples.json") as sampler:
        sampler.watch(child.pid, "loading")
        _allocate(child, 48 * MIB)
        sampler.step("decode b8 c4096")
        _allocate(child, 48 * MIB)
        time.sleep(0.2)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        time.sleep(0.1)
        found = sampler.result()
    assert found and found.last.step == "decode b8 c4096"
    assert found.last.tree_rss_bytes > 96 * MIB and found.peak.tree_rss_bytes >= found.last.tree_rss_bytes


def test_what_was_seen_outlives_the_sampling_process_and_its_parent(
    child: subprocess.Popen[str], tmp_path: Path
) -> None:
    file = sample_file(tmp_path, "m", "gptq-4")
    with SamplingClient(file) as sampler:
        sampler.watch(child.pid, "loading")
        _allocate(child, 48 * MIB)
        time.sleep(0.2)
        sampler._process.kill()
        sampler._process.wait()
        sampler.step("decode")  # goes nowhere, and stops nothing
        sampler.keep("loaded")
    found = read_samples(file)
    assert found and found.last.step == "loading" and found.last.tree_rss_bytes > 48 * MIB
    assert read_samples(tmp_path / "none.json") is None


def test_the_interval_is_the_one_that_was_reached(child: subprocess.Popen[str], tmp_path: Path) -> None:
    with SamplingClient(tmp_path / "samples.json") as sampler:
        sampler.watch(child.pid, "waiting")
        time.sleep(0.5)
        sampler.step("timing", glance=True)
        time.sleep(0.3)
        found = sampler.result()
    assert found and found.interval_seconds and found.asked_interval_seconds == 0.01 <= found.interval_seconds
    assert 2 < found.samples <= 60


def test_proportional_sizes_are_of_every_process_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "Path", lambda path: tmp_path / path.lstrip("/"))
    for pid in (1, 2):
        (tmp_path / f"proc/{pid}").mkdir(parents=True)
        (tmp_path / f"proc/{pid}/smaps_rollup").write_text(
            "5-7 ---p 0 [rollup]\nRss: 90 kB\nPss: 10 kB\nPss_Anon: 8 kB\nSwapPss: 4 kB\n"
        )
    (tmp_path / "proc/4/smaps_rollup").mkdir(parents=True)  # not to be read, by root either
    assert (
        sampling._pss_bytes([1, 2]) == sampling._pss_bytes([1, 2, 3]) == (20 * 1024, 8 * 1024)
    )  # 3 has ended
    assert sampling._pss_bytes([1, 4]) == (None, None) == sampling._pss_bytes([3])


def test_half_of_a_line_is_read_again_and_never_believed(
    child: subprocess.Popen[str], tmp_path: Path
) -> None:
    file = tmp_path / "samples.json"
    with SamplingClient(file) as sampler:
        sampler.watch(child.pid, "loading")
        assert sampler.so_far() is not None
    whole = file.read_text().partition("\n")[0]
    file.write_text(whole[: len(whole) // 2])
    assert read_samples(file) is None
    later = threading.Timer(0.03, lambda: file.write_text(whole + "\n"))
    later.start()
    assert read_samples(file) is not None
    later.join()
