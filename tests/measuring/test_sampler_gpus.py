"""The sampling process on GPUs that a stand-in of NVML shows: whose memory counts, by UUID, and what the
driver does not tell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from quantlab.measuring.sampling_client import SamplingClient

STUB = """
import json, os
from types import SimpleNamespace as Value
class NVMLError(Exception): ...
def _gpu(handle): return json.load(open(os.environ["STUB_NVML"]))[handle]
def nvmlInit(): ...
def nvmlDeviceGetHandleByUUID(uuid): return uuid
def nvmlDeviceGetName(handle): return "card " + handle
def nvmlDeviceGetComputeRunningProcesses(handle): return [Value(pid=p, usedGpuMemory=m) for p, m in _gpu(handle)["processes"]]
def nvmlDeviceGetMemoryInfo(handle): return Value(used=_gpu(handle)["used"])
"""
UUIDS = ("GPU-b", "GPU-a")


@pytest.fixture
def shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let NVML show used bytes and (pid, bytes) of each GPU from now on."""
    (tmp_path / "stub").mkdir()
    (tmp_path / "stub" / "pynvml.py").write_text(STUB)
    state = tmp_path / "nvml.json"
    monkeypatch.setenv("STUB_NVML", str(state))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "stub"), *sys.path]))

    def show(**gpus: tuple[int, list[tuple[int, int | None]]]) -> None:
        partial = state.with_suffix(".new")
        partial.write_text(
            json.dumps(
                {f"GPU-{name}": {"used": used, "processes": those} for name, (used, those) in gpus.items()}
            )
        )
        partial.replace(state)

    return show


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    made = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield made
    made.communicate(b"\n")


def test_memory_of_the_tree_and_of_the_device(
    shows: Callable[..., None], child: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    somebody = (1, 4000)
    shows(a=(5000, [somebody]), b=(100, []))
    with SamplingClient(tmp_path / "samples.json", UUIDS) as sampler:
        sampler.watch(child.pid, "importing")
        shows(a=(5500, [somebody, (child.pid, 500)]), b=(600, [(child.pid, 500)]))
        sampler.keep("empty")
        sampler.step("decode")
        shows(a=(7500, [somebody, (child.pid, 2500)]), b=(1600, [(child.pid, 1500)]))
        sampler.step("after")
        shows(
            a=(5600, [somebody, (child.pid, 600)]), b=(2600, [(child.pid, 2500)])
        )  # this one's peak, at another moment
        sampler.step("end")
        shows(a=(5500, [somebody, (child.pid, 500)]), b=(600, [(child.pid, 500)]))
        found = sampler.result()
    assert (
        found
        and [gpu.uuid for gpu in found.peak.gpus] == list(UUIDS)
        and found.peak.gpus[0].name == "card GPU-b"
    )
    assert [gpu.tree_bytes for gpu in found.peak.gpus] == [2500, 2500]
    assert found.peak_vram_bytes == 4000 and found.peak_vram_above_empty_bytes == 3000
    assert found.device_change_bytes == 2500 + 1500
    decode = next(step for step in found.steps if step.step == "decode")
    assert [gpu.tree_bytes for gpu in decode.gpus] == [1500, 2500] and "GB of card GPU-b" in found.last_words


@pytest.mark.parametrize(
    "processes", [[], [(4_000_000, 10)], "hidden"], ids=["none", "of another namespace", "size not told"]
)
def test_what_the_driver_does_not_tell_is_none(
    shows: Callable[..., None],
    child: subprocess.Popen[bytes],
    tmp_path: Path,
    processes: list[tuple[int, int]] | str,
) -> None:
    those = [(child.pid, None)] if processes == "hidden" else processes
    shows(a=(100, []), b=(100, []))
    with SamplingClient(tmp_path / "samples.json", UUIDS) as sampler:
        sampler.watch(child.pid, "loading")
        shows(a=(900, those), b=(100, []))
        sampler.keep("empty")
        found = sampler.result()
    assert found and found.peak_vram_bytes is None and found.peak_vram_above_empty_bytes is None
    assert found.device_change_bytes == 800
