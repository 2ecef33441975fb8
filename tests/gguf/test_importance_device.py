"""The importance matrix is computed on the GPU where the unquantized file fits there."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from quantlab.hardware import device as devices
from quantlab.hardware.device import Device, Gpu, find
from quantlab.methods._gguf import importance, importance_apart
from quantlab.methods._gguf._child import Ended
from quantlab.progress import Progress
from quantlab.stages import convert

GIB = 2**30
CARDS = tuple(
    Gpu(index=n, uuid=f"GPU-{n}", name="card", memory_bytes=24 * GIB, driver="580.1") for n in range(2)
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of 16 GiB, of which nothing is stored."""
    path = tmp_path / "f16.gguf"
    with path.open("wb") as opened:
        opened.truncate(16 * GIB)
    return path


def _device(name: str, monkeypatch: pytest.MonkeyPatch) -> Device:
    monkeypatch.setattr(devices, "gpus", lambda: CARDS)
    return find(name)


@pytest.mark.parametrize(
    ("name", "free", "offload", "place"),
    [
        ("cuda:0", {0: 22 * GIB}, True, "cuda:0"),
        ("cuda:1", {1: 22 * GIB}, True, "cuda:1"),
        ("cuda:0", {0: 17 * GIB}, True, "cpu"),  # the file alone, without llama.cpp's buffers
        ("cuda:0,1", {0: 10 * GIB, 1: 10 * GIB}, True, "cuda:0,1"),
        ("cuda:0,cpu", {0: 22 * GIB}, True, "cuda:0"),
        ("cuda:0", {0: 22 * GIB}, False, "cpu"),
        ("cpu", {}, True, "cpu"),
    ],
)
def test_gpu_row_12_the_importance_matrix_is_computed_where_the_unquantized_file_fits(
    name: str, free: dict[int, int], offload: bool, place: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert, "llama", lambda: SimpleNamespace(llama_supports_gpu_offload=lambda: offload))
    monkeypatch.setattr(convert, "free_vram_bytes", lambda gpus: {n: free[n] for n in gpus})
    assert convert.place_of_importance(_device(name, monkeypatch), file, 512, 128_256) == place


def test_gpu_row_12_without_a_device_it_stays_on_the_cpu(file: Path) -> None:
    assert convert.place_of_importance(None, file, 512, 128_256) == "cpu"


def test_gpu_row_12_the_process_that_computes_it_is_told_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[dict[str, Any]] = []

    def run_child(what: str, command: list[str], *_: Any) -> Ended:
        jobs.append(json.loads(command[-1]))
        return Ended(0, "")

    monkeypatch.setattr(importance_apart, "run_child", run_child)
    target = tmp_path / "imatrix.gguf"
    quiet = Progress(quiet=True)
    importance_apart.compute_apart(target, target, target, tmp_path / "log", quiet, "cuda:1")
    importance_apart.compute_apart(target, target, target, tmp_path / "log", quiet)
    assert [job["device"] for job in jobs] == ["cuda:1", "cpu"]

    seen: list[str] = []
    np.save(tmp_path / "windows.npy", np.zeros((1, 4), np.int64))
    monkeypatch.setattr(importance, "compute", lambda model, ids, progress, device: seen.append(device))
    monkeypatch.setattr(importance, "save", lambda made, path: None)
    importance_apart.main(jobs[0] | {"token_ids": str(tmp_path / "windows.npy"), "console": None})
    assert seen == ["cuda:1"]
