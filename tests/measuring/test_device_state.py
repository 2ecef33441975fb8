"""Energy counters, clocks and what moved, on files and values that stand for a machine's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from quantlab.hardware.condition import busy, conditions, cpu_mhz, moved
from quantlab.hardware.device import Device, Gpu, find
from quantlab.hardware.energy import meter
from quantlab.measuring.grid import workloads
from quantlab.measuring.speed import Timing, Timings
from quantlab.measuring.worker_client import GridPoint
from quantlab.recipe import MeasureSpec
from quantlab.records.measured import Conditions, GpuCondition

GPU = Gpu(index=0, uuid="GPU-0", name="card", memory_bytes=2**34, driver="1")


@pytest.fixture
def cpu() -> Device:
    return find("cpu")


def _package(root: Path, name: str, microjoules: int) -> Path:
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    (folder / "name").write_text("psys\n" if name == "intel-rapl:9" else "package-0\n")
    (folder / "max_energy_range_uj").write_text("10000000\n")
    return folder


def test_energy_of_packages_adds_up_and_wraps(cpu: Device, tmp_path: Path) -> None:
    _package(tmp_path, "intel-rapl:0", 9_000_000), _package(tmp_path, "intel-rapl:1", 1_000_000)
    _package(tmp_path, "intel-rapl:0:0", 5)  # a part of a package, which already counts it
    _package(tmp_path, "intel-rapl:9", 7)  # the whole system's, which counts the packages once more
    found = meter(cpu, tmp_path)
    before = found.read()
    _package(tmp_path, "intel-rapl:0", 1_000_000), _package(tmp_path, "intel-rapl:1", 1_500_000)
    _package(tmp_path, "intel-rapl:9", 5_000_000)
    assert found.source and found.used(before, found.read()) == pytest.approx(2.0 + 0.5)


def test_without_counters_there_is_a_reason(cpu: Device, tmp_path: Path) -> None:
    found = meter(cpu, tmp_path)
    assert found.source is None and found.reason and "RAPL" in found.reason and found.used([], []) is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_counters_for_root_alone_are_a_reason(cpu: Device, tmp_path: Path) -> None:
    (_package(tmp_path, "intel-rapl:0", 1) / "energy_uj").chmod(0)
    assert "root" in (meter(cpu, tmp_path).reason or "")


def test_joules_per_token_need_every_repeat() -> None:
    work = GridPoint(batch=2, context=10, prompt=6, decode=5)
    whole = Timings(work, (Timing(1, 1, 3.2, 1.0), Timing(1, 1, 3.2, 3.0)))
    assert whole.joules_per_token(decode=True) == pytest.approx(4.0 / (2 * 2 * 5))
    assert whole.joules_per_token(decode=False) == pytest.approx(6.4 / (2 * 2 * 16))
    assert Timings(work, (*whole.repeats, Timing(1, 1, None, None))).joules_per_token(decode=True) is None
    brief = Timings(
        work, (Timing(0.4, 1, 3.2, 1.0), Timing(0.4, 1, 3.2, 3.0))
    )  # a counter's steps would be in it
    assert brief.joules_per_token(decode=False) is None and brief.joules_per_token(decode=True) is not None


def test_clocks_are_those_of_the_processors_that_are_used(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    text = "".join(f"processor\t: {n}\ncpu MHz\t\t: {1000.0 * (n + 1)}\n" for n in range(64))
    (tmp_path / "proc" / "cpuinfo").write_text(text)
    allowed = sorted(os.sched_getaffinity(0))
    assert cpu_mhz(tmp_path) == pytest.approx(sum(1000 * (n + 1) for n in allowed) / len(allowed))
    for n in allowed:
        folder = tmp_path / f"sys/devices/system/cpu/cpu{n}/cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_cur_freq").write_text("2500000\n")
    assert cpu_mhz(tmp_path) == 2500 and cpu_mhz(tmp_path / "nothing") is None


def test_what_moved_is_said(cpu: Device) -> None:
    now = conditions(cpu)
    assert moved(now, now) == []
    assert moved(Conditions(cpu_mhz=2000), Conditions(cpu_mhz=2050)) == []
    assert "2000 to 1500 MHz" in moved(Conditions(cpu_mhz=2000), Conditions(cpu_mhz=1500))[0]
    before = GpuCondition(uuid="GPU-0", name="card", sm_clock_mhz=1980, power_limit_watts=700)
    after = before.model_copy(update={"sm_clock_mhz": 1200, "throttle_reasons": ("software power cap",)})
    said = moved(Conditions(gpus=(before,)), Conditions(gpus=(after,)))
    assert (
        len(said) == 2
        and "SM clock (MHz) of card moved from 1980 to 1200" in said[0]
        and "software power cap" in said[1]
    )


def test_a_busy_machine_is_said_to_be_one() -> None:
    assert busy(Conditions(load_average=2.4), 2) == [] == busy(Conditions(), 2)
    assert "9.0 on 2 processors" in busy(Conditions(load_average=9.0), 2)[0]


def test_the_grid_is_the_recipes_or_the_devices(cpu: Device) -> None:
    gpu = cpu.model_copy(update={"device": "cuda:0", "gpus": (GPU,)})
    shapes = [[(w.batch, w.context) for w in workloads(MeasureSpec(), device)] for device in (cpu, gpu)]
    assert shapes == [[(1, 0)], [(1, 0), (8, 0), (1, 4096), (8, 4096)]]
    assert [(w.batch, w.context) for w in workloads(MeasureSpec(batch=(4, 2, 4), context=(64,)), gpu)] == [
        (2, 64),
        (4, 64),
    ]
