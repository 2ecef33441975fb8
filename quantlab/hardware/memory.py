"""Read the memory of this process and the free memory of GPUs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from quantlab.hardware import rocm
from quantlab.hardware.device import gpus, told


class ProcessMemory(NamedTuple):
    """Resident memory of this process in bytes."""

    rss_bytes: int
    peak_rss_bytes: int


def process_memory() -> ProcessMemory:
    """Resident memory now, and its highest value since the process began (Linux: VmRSS and VmHWM)."""
    import psutil

    status = Path("/proc/self/status")
    if status.exists():
        fields = dict(re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB", status.read_text(), re.M))
        return ProcessMemory(int(fields["VmRSS"]) * 1024, int(fields["VmHWM"]) * 1024)
    now = psutil.Process().memory_info()
    return ProcessMemory(now.rss, getattr(now, "peak_wset", now.rss))


def free_vram_bytes(indices: tuple[int, ...]) -> dict[int, int]:
    """Free memory of GPUs by CUDA's number, as the driver sees it now; the machine's of one that shares it
    and tells no size."""
    import psutil
    import pynvml

    there = gpus()
    if any(rocm.is_amd(there[n].uuid) for n in indices):
        return {n: rocm.free_bytes(there[n].uuid) for n in indices}
    pynvml.nvmlInit()
    try:
        told = {
            n: told(pynvml.nvmlDeviceGetMemoryInfo, pynvml.nvmlDeviceGetHandleByUUID(there[n].uuid))
            for n in indices
        }
        return {
            n: int(psutil.virtual_memory().available if info is None else info.free)
            for n, info in told.items()
        }
    finally:
        pynvml.nvmlShutdown()
