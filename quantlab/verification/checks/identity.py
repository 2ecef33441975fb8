"""Hold the device that the driver describes beside the one that torch opens, and try its arithmetic."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from quantlab.environments.llama_build import find_nvcc
from quantlab.hardware.device import Device, told
from quantlab.records.verification import Outcome
from quantlab.verification.contract import Check, Context, judged, once

_SIZE = 1024
_MOST_ERROR = {"float32": 1e-3, "bfloat16": 2e-2}
"""Largest relative error of a product of random matrices, by the norm; TF32 has 11 bits of mantissa."""
_SAME_MEMORY = 0.05
"""By how much torch's total may be less than the driver's: it leaves out what the driver keeps."""


class Seen(NamedTuple):
    """What torch says of the device."""

    gpus: int
    memory_bytes: int | None
    """Total of the GPU that the device names; None on a CPU."""
    errors: dict[str, float]
    """Relative error of a product, by dtype."""
    threads: int


def run(context: Context) -> Outcome:
    """Driver and torch, side by side."""
    seen = look(context.device)
    facts = _facts(context.device)
    figures = {
        "device_memory_bytes": context.device.memory_bytes,
        "torch_memory_bytes": seen.memory_bytes,
        "torch_uses_cores": seen.threads,
        **{f"{dtype}_product_error_share": error for dtype, error in seen.errors.items()},
    }
    return judged(complaints(context.device, seen), figures, facts)


def look(device: Device) -> Seen:
    """Open the device with torch and multiply on it."""
    import torch

    gpu = device.places.first if device.places.gpus else None
    total = int(torch.cuda.mem_get_info(gpu)[1]) if gpu else None
    errors = {dtype: _error(getattr(torch, dtype), device.places.first) for dtype in _MOST_ERROR}
    return Seen(torch.cuda.device_count(), total, errors, torch.get_num_threads())


def _error(dtype: Any, place: str) -> float:
    """Of a product on the device against the same in float64 on the processor."""
    import torch

    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(_SIZE, _SIZE, generator=generator).to(dtype) for _ in range(2))
    exact = a.double() @ b.double()
    made = (a.to(place) @ b.to(place)).cpu().double()
    return float((made - exact).norm() / exact.norm())


def complaints(device: Device, seen: Seen) -> list[str]:
    """What does not agree."""
    said = []
    if seen.gpus != len(device.gpus):
        said.append(f"the driver shows {len(device.gpus)} GPUs, torch sees {seen.gpus}")
    if device.places.gpus:
        total = device.used_gpus[0].memory_bytes
        if seen.memory_bytes is None or not (1 - _SAME_MEMORY) * total <= seen.memory_bytes <= total:
            said.append(f"the driver shows {total:,} bytes of memory, torch {seen.memory_bytes or 0:,}")
    said += [
        f"a product in {dtype} is wrong by {error:.2g} of its size"
        for dtype, error in seen.errors.items()
        if not error <= _MOST_ERROR[dtype]
    ]
    if seen.threads > device.cores:
        said.append(f"torch uses {seen.threads} threads, this process may use {device.cores} processors")
    return said


def _facts(device: Device) -> dict[str, str]:
    import torch

    facts = {"torch": torch.__version__, "torch's CUDA": str(torch.version.cuda)}
    if device.places.gpus:
        major, minor = torch.cuda.get_device_capability(device.places.first)
        facts |= {"driver": device.used_gpus[0].driver, "compute capability": f"{major}.{minor}"}
        facts |= {"nvcc": "there" if find_nvcc(os.environ) else "missing"}
        facts |= {"the driver shows this process": "yes" if _shown(device) else "no"}
    return facts


def _shown(device: Device) -> bool:
    """Whether the driver lists this process on the GPU; in a container it may list other numbers."""
    import pynvml

    told(pynvml.nvmlInit)
    handle = told(pynvml.nvmlDeviceGetHandleByUUID, device.used_gpus[0].uuid)
    listed = told(pynvml.nvmlDeviceGetComputeRunningProcesses, handle) or ()
    return os.getpid() in {process.pid for process in listed}


CHECK = Check(
    name="identity",
    proves="torch opens the device that the driver describes, and multiplies right on it",
    run=run,
    subjects=once(10),
    usual_seconds=15,
)
