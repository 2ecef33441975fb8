"""Read the memory of this process, of the machine or the container that it runs in, and of GPUs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from quantlab.container import ROOT, memory_left_bytes
from quantlab.hardware import rocm
from quantlab.hardware.device import gpus, told
from quantlab.hardware.torch_view import ask_torch


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


def available_bytes(root: Path = ROOT) -> int:
    """Memory that can be taken without swapping: the machine's, or what a container's limit leaves."""
    import psutil

    left, free = memory_left_bytes(root), int(psutil.virtual_memory().available)
    return free if left is None else min(free, left)


def free_vram_bytes(indices: tuple[int, ...]) -> dict[int, int]:
    """Free memory of GPUs by CUDA's number, as the driver sees it now; the machine's of one that shares it
    and tells no size."""
    import pynvml

    there = gpus()
    if any(rocm.is_amd(there[n].uuid) for n in indices):
        return {n: rocm.free_bytes(there[n].uuid) for n in indices}
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # the GPUs are known from torch alone
        seen = ask_torch().gpus
        return {n: seen[n].free_bytes for n in indices}
    try:
        told = {
            n: told(pynvml.nvmlDeviceGetMemoryInfo, pynvml.nvmlDeviceGetHandleByUUID(there[n].uuid))
            for n in indices
        }
        return {n: int(available_bytes() if info is None else info.free) for n, info in told.items()}
    finally:
        pynvml.nvmlShutdown()
