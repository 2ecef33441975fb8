"""Flash attention: off wherever logits are compared, chosen by llama.cpp where a GPU is timed, and named."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from quantlab.engines import llama_cpp
from quantlab.engines._llama import inside
from quantlab.engines._llama.library import Context, Model, _context_parameters
from quantlab.engines.llama_cpp import LlamaCppEngine
from quantlab.formats.llama_log import llama

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("device", "cache", "choose", "kind"),
    [
        ("cuda:0", "f16", True, "AUTO"),
        ("cuda:0", "f16", False, "DISABLED"),
        ("cpu", "f16", False, "DISABLED"),
        ("cuda:0", "q8_0", True, "ENABLED"),
        ("cpu", "q8_0", False, "ENABLED"),
    ],
)
def test_gpu_row_11_llama_cpp_is_told_to_choose(device: str, cache: str, choose: bool, kind: str) -> None:
    model: Any = SimpleNamespace(device=device, cache=cache)
    asked = _context_parameters(model, choose).flash_attn_type
    assert asked == getattr(llama(), f"LLAMA_FLASH_ATTN_TYPE_{kind}")


def test_gpu_row_11_what_llama_cpp_chose_is_read_from_its_messages(prepared: Path) -> None:
    """On a CPU its choice is flash attention; ours for what is compared is none."""
    model = Model(prepared / "f16.gguf")
    for choose in (True, False):
        context = Context(model, 256, 8, 8, choose_flash=choose)
        assert context.flash_attention is choose
        context.close()
    model.close()


class _Context:
    """What a context is asked for, without a model."""

    made: list[tuple[int, bool, bool]] = []
    chooses = True

    def __init__(
        self,
        model: Any,
        cells: int,
        batch: int,
        ubatch: int,
        sequences: int = 1,
        full_window: bool = True,
        choose_flash: bool = False,
        watch: Any = None,
    ) -> None:
        self.made.append((cells, full_window, choose_flash))
        self.flash_attention = choose_flash and self.chooses
        self.batch = batch

    def clear(self) -> None: ...

    def wait(self) -> None: ...

    def close(self) -> None: ...

    def run(self, batch: Any) -> np.ndarray:
        return np.zeros((sum(map(bool, batch.wanted)), 3), np.float32)


@pytest.mark.parametrize(
    ("device", "chooses", "timed", "kernel"),
    [
        ("cuda:0", True, True, "llama.cpp CUDA (flash attention on)"),
        ("cuda:0", False, True, "llama.cpp CUDA (flash attention off)"),
        ("cpu", True, False, "flash attention off"),
    ],
)
def test_gpu_row_11_a_gpu_is_timed_as_a_server_runs_and_the_kernel_says_how(
    device: str, chooses: bool, timed: bool, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a pretended device: the kernel is known before anything is timed, and logits stay without it."""
    monkeypatch.setattr(_Context, "made", [])
    monkeypatch.setattr(_Context, "chooses", chooses)
    monkeypatch.setattr(llama_cpp, "Context", _Context)
    model = SimpleNamespace(device=device, cache="f16", trained_context=64, repacked_bytes=0)
    monkeypatch.setattr(llama_cpp, "Model", lambda *_: model)
    monkeypatch.setattr(llama_cpp, "find", lambda device: SimpleNamespace(name="card"))
    monkeypatch.setattr(inside, "tensor_types", lambda file: ["F16"])
    engine = LlamaCppEngine(Path("f.gguf"), Path("tokenizer"), device)
    assert kernel in engine.kernel
    before = len(_Context.made)
    engine.logits(np.zeros(8, np.int64))
    engine.prefill(np.zeros((1, 8), np.int64))
    logits, prefill = _Context.made[before:]
    assert logits[1:] == (True, False) and prefill[1:] == (False, timed)
