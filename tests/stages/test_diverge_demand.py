"""What the divergence asks of an engine that takes its memory before anything else, and of the GPU beside it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from quantlab import engines
from quantlab.engines import Demand
from quantlab.hardware.device import find
from quantlab.progress import Progress
from quantlab.stages import diverge

LENGTH = 24


class _Opened(Exception):
    """Raised in place of opening a checkpoint: enough was seen."""


@pytest.mark.parametrize(("engine", "on_the_device"), [("vllm", False), ("transformers", True)])
def test_gpu_row_10_the_head_stays_off_a_gpu_that_the_engine_reserves(
    engine: str, on_the_device: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    class Reference:
        info = SimpleNamespace(vocabulary=None)

        def __init__(self, folder: Path, device: Any = None) -> None:
            seen["head"] = device

        def require_current(self, cell: Any) -> None: ...

    def open_checkpoint(*_: Any, demand: Demand) -> None:
        seen["demand"] = demand
        raise _Opened

    checkpoint = SimpleNamespace(
        manifest=SimpleNamespace(format="safetensors", dense_verified=False), disk_bytes=1
    )
    prepared = SimpleNamespace(
        require_unchanged=lambda weights: None,
        source=lambda: SimpleNamespace(vocabulary=None),
        token_ids=lambda name: np.zeros((2, LENGTH), np.int64),
    )
    cell: Any = SimpleNamespace(
        checkpoint=lambda: checkpoint,
        prepared=prepared,
        recipe=SimpleNamespace(engine=engine),
        root=tmp_path,
        model="m",
    )
    monkeypatch.setattr(diverge, "Reference", Reference)
    monkeypatch.setattr(diverge, "require_same_vocabulary", lambda *_: None)
    monkeypatch.setattr(engines.load(engine), "open_checkpoint", open_checkpoint)
    device = find("cpu")
    with pytest.raises(_Opened):
        diverge.run(cell, device, Progress(quiet=True))
    assert seen["head"] is (device if on_the_device else None)
    # row 9: the window and the token after it; row 20: all of it is scored at once
    assert seen["demand"] == Demand(tokens=LENGTH + 1, scored_tokens=LENGTH)
