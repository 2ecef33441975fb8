"""Processors and memory are the container's, not the machine's."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from quantlab import container, processors
from quantlab.container import memory_left_bytes, memory_limit_bytes, processor_quota
from quantlab.hardware import device
from quantlab.hardware.memory import available_bytes
from quantlab.processors import cores, limit_threads

GIB = 2**30


def _new(root: Path, group: str = "outer/inner", **files: str) -> Path:
    """A machine with version 2 of control groups; `files` stand in the outer group, `max` in the inner."""
    inner = root / "sys/fs/cgroup" / group
    inner.mkdir(parents=True)
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(f"0::/{group}\n")
    for name, text in files.items():
        (inner.parent / name.replace("_", ".", 1)).write_text(f"{text}\n")
    (inner / "memory.max").write_text("max\n")
    (inner / "cpu.max").write_text("max 100000\n")
    return root


def _old(root: Path, quota: str = "-1", limit: str = "9223372036854771712") -> Path:
    """A container with version 1, which sees its own groups as the tops, under the names that they have
    outside."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(
        "9:name=systemd:/\n4:cpuacct,cpu:/docker/ab\n3:memory:/docker/ab\n0::/\n"
    )
    for name in ("cpu", "memory"):
        (root / "sys/fs/cgroup" / name).mkdir(parents=True)
    cpu, memory = root / "sys/fs/cgroup/cpu", root / "sys/fs/cgroup/memory"
    (cpu / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (cpu / "cpu.cfs_period_us").write_text("100000\n")
    (memory / "memory.limit_in_bytes").write_text(f"{limit}\n")
    (memory / "memory.usage_in_bytes").write_text("700\n")
    (memory / "memory.stat").write_text("inactive_file 1\ntotal_inactive_file 150\n")
    return root


def test_free_memory_of_the_control_group_and_those_above_it(tmp_path: Path) -> None:
    machine = _new(tmp_path, memory_max="1000", memory_current="700", memory_stat="anon 5\ninactive_file 150")
    assert memory_left_bytes(machine) == 1000 - (700 - 150) and memory_limit_bytes(machine) == 1000
    assert (
        memory_left_bytes(tmp_path / "nothing") is None and memory_limit_bytes(tmp_path / "nothing") is None
    )


def test_version_1_of_control_groups_counts_too(tmp_path: Path) -> None:
    limited, free = _old(tmp_path / "a", quota="250000", limit="1000"), _old(tmp_path / "b")
    assert memory_left_bytes(limited) == 450 and memory_limit_bytes(limited) == 1000
    assert processor_quota(limited) == 2.5
    assert memory_left_bytes(free) is None is memory_limit_bytes(free) is None is processor_quota(free)


@pytest.mark.parametrize(
    ("quota", "mask", "expected"),
    [
        ("400000 100000", 64, 4),
        ("250000 100000", 64, 2),
        ("50000 100000", 64, 1),
        ("max 100000", 64, 64),
        ("800000 100000", 2, 2),
    ],
)
def test_cores_are_those_of_the_containers_quota(
    quota: str, mask: int, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(mask)), raising=False)
    assert cores(_new(tmp_path, cpu_max=quota)) == expected


def test_openmp_starts_no_more_threads_than_the_quota_lets_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(processors, "processor_quota", lambda root: 3.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    limit_threads()
    assert os.environ["OMP_NUM_THREADS"] == "5"  # the user's word
    monkeypatch.delenv("OMP_NUM_THREADS")
    limit_threads()
    assert os.environ["OMP_NUM_THREADS"] == "3"
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(processors, "processor_quota", lambda root: None)
    limit_threads()
    assert "OMP_NUM_THREADS" not in os.environ


def test_memory_is_the_containers_where_it_has_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = _new(tmp_path / "a", memory_max=str(3 * GIB), memory_current=str(2 * GIB))
    assert device.memory_bytes(small) == 3 * GIB and available_bytes(small) == GIB
    large = _new(tmp_path / "b", memory_max=str(2**58), memory_current="0")
    assert device.memory_bytes(large) == psutil.virtual_memory().total
    assert available_bytes(large) <= psutil.virtual_memory().total
    monkeypatch.setattr(device, "memory_limit_bytes", lambda root: 3 * GIB)
    assert device.find("cpu").memory_gib == 3 and device.find("cpu").memory_bytes == 3 * GIB


def test_this_machines_own_groups_can_be_read() -> None:
    assert container.processor_quota() is None or container.processor_quota() > 0  # type: ignore[operator]
    assert 1 <= cores() <= (os.cpu_count() or 1)
    assert 0 < available_bytes() <= device.memory_bytes()
