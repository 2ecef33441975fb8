"""A check of another package on the path, and a CPU as the device."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from quantlab import registry
from quantlab.hardware.device import Device, Gpu, find

OUTSIDE = Path(__file__).parent / "outside"
CARD = Gpu(index=0, uuid="GPU-0", name="NVIDIA H100 80GB HBM3", memory_bytes=80 * 2**30, driver="580.1")


@pytest.fixture
def cpu() -> Device:
    return find("cpu")


@pytest.fixture
def gpu(cpu: Device) -> Device:
    """A machine that has a GPU, as the driver would describe it."""
    return cpu.model_copy(update={"device": "cuda:0", "name": CARD.name, "gpus": (CARD,)})


@pytest.fixture
def watcher(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The check `watcher`, for this process and those that it starts."""
    path = os.pathsep.join([str(OUTSIDE), *filter(None, [os.environ.get("PYTHONPATH")])])
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.syspath_prepend(str(OUTSIDE))
    registry._entry_points.cache_clear()
    yield "watcher"
    registry._entry_points.cache_clear()
