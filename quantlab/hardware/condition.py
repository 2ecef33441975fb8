"""Read clocks, power limit, temperature and throttling of the device, and compare two readings.

No GPU has run this file yet.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from quantlab.hardware.device import Device
from quantlab.hardware.rocm import is_amd
from quantlab.records.measured import Conditions, GpuCondition

_TOLERANCE, _BUSY = 0.05, 1.5
_WATCHED = {
    "sm_clock_mhz": "SM clock (MHz)",
    "memory_clock_mhz": "memory clock (MHz)",
    "power_limit_watts": "power limit (W)",
}
_REASONS = {  # nvml.h, nvmlClocksEventReason*
    0x2: "applications clocks setting",
    0x4: "software power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
    0x100: "display clock setting",
}


def load_average() -> float | None:
    """Of the last minute; to be read before a measurement begins, which would be in it."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def conditions(device: Device, load: float | None = None) -> Conditions:
    """Now, with a load average that was read earlier."""
    return Conditions(
        cpu_mhz=cpu_mhz(), load_average=load, gpus=tuple(_gpu(gpu.uuid, gpu.name) for gpu in device.used_gpus)
    )


def cpu_mhz(root: Path = Path("/")) -> float | None:
    """Mean clock of the processors that this process may use: cpufreq's, else what /proc/cpuinfo shows."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    files = [root / f"sys/devices/system/cpu/cpu{n}/cpufreq/scaling_cur_freq" for n in sorted(allowed)]
    clocks = [int(file.read_text()) / 1000 for file in files if file.exists()]
    info = root / "proc/cpuinfo"
    if not clocks and info.exists():
        text = info.read_text()
        numbers, shown = (
            re.findall(r"^processor\s*:\s*(\d+)", text, re.M),
            re.findall(r"^cpu MHz\s*:\s*([0-9.]+)", text, re.M),
        )
        clocks = [float(mhz) for number, mhz in zip(numbers, shown, strict=False) if int(number) in allowed]
    return sum(clocks) / len(clocks) if clocks else None


def _gpu(uuid: str, name: str) -> GpuCondition:
    if is_amd(uuid):
        return GpuCondition(uuid=uuid, name=name)
    import pynvml

    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
    except pynvml.NVMLError:
        return GpuCondition(uuid=uuid, name=name)

    def ask(function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(handle, *arguments)
        except (pynvml.NVMLError, pynvml.NVMLLibraryMismatchError):
            return None

    mask = ask(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons) or 0
    limit, power = ask(pynvml.nvmlDeviceGetEnforcedPowerLimit), ask(pynvml.nvmlDeviceGetPowerUsage)
    return GpuCondition(
        uuid=uuid,
        name=name,
        sm_clock_mhz=ask(pynvml.nvmlDeviceGetClockInfo, pynvml.NVML_CLOCK_SM),
        memory_clock_mhz=ask(pynvml.nvmlDeviceGetClockInfo, pynvml.NVML_CLOCK_MEM),
        power_limit_watts=None if limit is None else limit / 1000,
        power_watts=None if power is None else power / 1000,
        temperature_celsius=ask(pynvml.nvmlDeviceGetTemperature, pynvml.NVML_TEMPERATURE_GPU),
        throttle_reasons=tuple(reason for bit, reason in _REASONS.items() if mask & bit),
    )


def busy(before: Conditions, cores: int) -> list[str]:
    """A sentence where more ran on the machine in the minute before the measurement than it has processors
    for."""
    load = before.load_average
    if load is None or load <= _BUSY * cores:
        return []
    return [
        f"The machine was busy in the minute before the measurement: a load average of {load:.1f} on {cores}"
        " processors, an earlier stage's own work included. If that went on, its timings are too slow."
    ]


def moved(before: Conditions, after: Conditions) -> list[str]:
    """One sentence for each thing that changed by more than 5 % while the repeats ran, and for throttling."""
    said = []
    if before.cpu_mhz and after.cpu_mhz and _changed(before.cpu_mhz, after.cpu_mhz):
        said.append(
            f"The processor's clock moved from {before.cpu_mhz:.0f} to {after.cpu_mhz:.0f} MHz while it was"
            " timed."
        )
    for one, other in zip(before.gpus, after.gpus, strict=True):
        for field, what in _WATCHED.items():
            a, b = getattr(one, field), getattr(other, field)
            if a and b and _changed(a, b):
                said.append(f"The {what} of {one.name} moved from {a:.0f} to {b:.0f} while it was timed.")
        reasons = dict.fromkeys(one.throttle_reasons + other.throttle_reasons)
        if reasons:
            said.append(f"{one.name} held its clocks back: {', '.join(reasons)}.")
    return said


def _changed(a: float, b: float) -> bool:
    return abs(b - a) > _TOLERANCE * max(a, b)
