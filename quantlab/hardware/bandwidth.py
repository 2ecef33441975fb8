"""Measure the device's memory bandwidth by copying: `python -m quantlab.hardware.bandwidth cpu`, a child
process.

Counted are the bytes read and the bytes written. A processor that reads a line before it writes it moves half
as much again, which is not counted. The best of several copies, in one block for each thread; a block is
several times the last cache, as far as memory allows."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from quantlab import processes
from quantlab.errors import CellFailure
from quantlab.files import write_json
from quantlab.hardware.device import Device, parse_places
from quantlab.hardware.memory import available_bytes
from quantlab.processors import cores
from quantlab.records.measured import Bandwidth

COPIES = 7
_CACHES, _LEAST, _MOST = 4, 2**28, 2**31
_GPU_BYTES = 2**30


def measured_bandwidth(root: Path, device: Device) -> Bandwidth:
    """Of the device, measured once for a workspace. Raises CellFailure where it cannot be measured.

    Of a model spread over several GPUs the first one's: layers run one after the other, each on its own.
    """
    file, key = (
        root / ".quantlab" / "bandwidth.json",
        f"{device.places.first}: {device.name}, {device.cores} cores",
    )
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if key not in known:
        command = [sys.executable, "-P", "-m", "quantlab.hardware.bandwidth", device.places.first]
        done = processes.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            raise CellFailure(
                "not_measured",
                f"the memory bandwidth was not measured: {done.stderr.strip().rpartition(chr(10))[2][:200]}",
            )
        known[key] = json.loads(done.stdout)
        write_json(file, known)
    return Bandwidth.model_validate(known[key])


def measure(place: str) -> Bandwidth:
    """Now, on `cpu` or a CUDA device."""
    return _cpu() if not parse_places(place).gpus else _cuda(place)


def _cpu() -> Bandwidth:
    import numpy as np

    threads, size = cores(), _block_bytes()
    source, target = np.ones(size, np.uint8), np.zeros(size, np.uint8)
    edges = np.linspace(0, size, threads + 1, dtype=np.int64)
    parts = [(target[a:b], source[a:b]) for a, b in itertools.pairwise(edges)]
    with ThreadPoolExecutor(threads) as pool:
        seconds = _best(lambda: list(pool.map(lambda part: np.copyto(*part), parts)))
    return Bandwidth(measured_bytes_per_second=2 * size / seconds, copied_bytes=size, threads=threads)


def _block_bytes() -> int:
    """Four times the last cache, at most an eighth of the free memory."""
    sizes = [p.read_text().strip() for p in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    last = max((int(size[:-1]) * units[size[-1]] for size in sizes if size[-1:] in units), default=0)
    return min(max(_CACHES * last, _LEAST), available_bytes() // 8, _MOST)


def _cuda(place: str) -> Bandwidth:
    import torch

    source = torch.ones(_GPU_BYTES, dtype=torch.uint8, device=place)
    target = torch.empty_like(source)

    def copy() -> None:
        target.copy_(source)
        torch.cuda.synchronize(place)

    return Bandwidth(
        measured_bytes_per_second=2 * _GPU_BYTES / _best(copy), copied_bytes=_GPU_BYTES, threads=None
    )


def _best(work: Callable[[], object]) -> float:
    """Seconds of the quickest of several, after one to warm up."""
    rates = []
    for _ in range(COPIES + 1):
        began = time.perf_counter()
        work()
        rates.append(time.perf_counter() - began)
    return min(rates[1:])


if __name__ == "__main__":
    print(measure(sys.argv[1]).model_dump_json())
