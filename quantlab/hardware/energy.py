"""Read energy counters: NVML's of each GPU, else the processor packages' (RAPL) where they are readable.

The counters are the whole device's, idle power and other users included. No GPU has run this file yet.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from quantlab.hardware.device import Device
from quantlab.hardware.rocm import is_amd

_RAPL = Path("/sys/class/powercap")


class Counter(NamedTuple):
    """One counter in joules; `wraps_at` is where it begins again, 0 where it does not."""

    read: Callable[[], float]
    wraps_at: float = 0.0


class Meter(NamedTuple):
    """The counters of a device, or the reason why there are none."""

    counters: tuple[Counter, ...]
    source: str | None = None
    reason: str | None = None

    def read(self) -> list[float]:
        """Each counter now, in joules."""
        return [counter.read() for counter in self.counters]

    def used(self, before: list[float], after: list[float]) -> float | None:
        """Joules between two readings, over all counters; None without counters."""
        if not self.counters:
            return None
        spans = [
            (b - a) % c.wraps_at if c.wraps_at else b - a
            for c, a, b in zip(self.counters, before, after, strict=True)
        ]
        return sum(spans)


def meter(device: Device, rapl: Path = _RAPL) -> Meter:
    """The counters of the device; a model that lies on GPUs and CPU is charged the GPUs' alone, and the
    source says so."""
    if any(is_amd(gpu.uuid) for gpu in device.used_gpus):
        return Meter((), reason="energy counters of AMD GPUs are not read")
    if device.used_gpus:
        return _nvml([gpu.uuid for gpu in device.used_gpus])
    # `psys` stands beside the packages and counts them once more
    packages = sorted(
        path
        for path in rapl.glob("intel-rapl:*")
        if path.name.count(":") == 1 and _name(path).startswith("package")
    )
    if not packages:
        return Meter(
            (),
            reason=(
                "this machine shows no energy counters (no RAPL in /sys/class/powercap, as in most virtual"
                " machines)"
            ),
        )
    try:
        return Meter(tuple(map(_package, packages)), source="RAPL, processor packages without the memory")
    except PermissionError:
        return Meter((), reason="the processor's energy counters (RAPL) may only be read by root here")


def _name(path: Path) -> str:
    name = path / "name"
    return name.read_text().strip() if name.exists() else ""


def _package(path: Path) -> Counter:
    """A processor package: microjoules that wrap at a range of its own."""
    counter = Counter(
        lambda: int((path / "energy_uj").read_text()) / 1e6,
        int((path / "max_energy_range_uj").read_text()) / 1e6,
    )
    counter.read()
    return counter


def _nvml(uuids: list[str]) -> Meter:
    import pynvml

    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByUUID(uuid) for uuid in uuids]
        counters = tuple(Counter(partial(_gpu_joules, handle)) for handle in handles)
        for counter in counters:
            counter.read()
    except pynvml.NVMLError as error:
        return Meter((), reason=f"this GPU has no energy counter ({error})")
    return Meter(counters, source="NVML total energy, the GPUs alone")


def _gpu_joules(handle: Any) -> float:
    """NVML counts millijoules since the driver was loaded."""
    import pynvml

    return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000
