"""Memory of quantizing: the gate of each method, and that the model is gone before its checkpoint is loaded."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import pytest

from quantlab import methods
from quantlab.errors import CellFailure
from quantlab.hardware.device import Device, Gpu, find
from quantlab.hardware.target import require_host_memory, require_memory
from quantlab.methods import InMemory
from quantlab.progress import Progress
from quantlab.stages import quantize
from quantlab.workspace.cell import Cell

BILLION = 10**9


def _machine(vram_gib: int, memory_gib: int, device: str = "cuda:0") -> Device:
    card = Gpu(index=0, uuid="GPU-0", name="a card", memory_bytes=vram_gib * 2**30, driver="580")
    own = {"device": device, "name": "a card", "gpus": (card,), "memory_gib": memory_gib}
    return find("cpu").model_copy(update=own)


def _why_not(method: str, bits: int, parameters: int, device: Device) -> str | None:
    needs = methods.load(method).memory(parameters, bits)
    try:
        require_memory(device, needs.device_bytes, "quantizing")
        require_host_memory(device, needs.host_bytes, "quantizing")
    except CellFailure as failure:
        return failure.reason
    return None


@pytest.mark.parametrize("variant", ["gptq-4", "awq-4", "autoround-4", "bitsandbytes-4"])
def test_gpu_row_5_four_bits_of_32b_are_made_on_a_card_of_24_gb(variant: str) -> None:
    method, bits = variant.split("-")
    assert _why_not(method, int(bits), 32 * BILLION, _machine(24, 128)) is None


@pytest.mark.parametrize("variant", ["bitsandbytes-8", "fp8-8", "gptq-8"])
def test_gpu_row_5_what_the_card_does_not_hold_when_it_is_loaded_again_is_refused(variant: str) -> None:
    method, bits = variant.split("-")
    why = _why_not(method, int(bits), 32 * BILLION, _machine(24, 128))
    assert why == "quantizing needs at least 29.8 GiB, a card has 24.0 GiB"


@pytest.mark.parametrize("method", ["gptq", "awq", "autoround"])
def test_gpu_row_5_the_machines_memory_holds_the_whole_model(method: str) -> None:
    """72B on a machine of 128 GB was killed by the system."""
    why = _why_not(method, 4, 72 * BILLION, _machine(80, 128))
    assert why == "quantizing needs at least 134.1 GiB of the machine's memory, which has 128 GiB"
    assert _why_not(method, 4, 72 * BILLION, _machine(80, 160)) is None
    assert _why_not(method, 4, 8 * BILLION, _machine(0, 8, "cpu"))  # the machine is the device


def test_gpu_row_5_methods_that_go_file_by_file_need_no_host_memory() -> None:
    for variant in ("bitsandbytes-4", "fp8-8", "gguf-4"):
        method, bits = variant.split("-")
        assert methods.load(method).memory(72 * BILLION, int(bits)).host_bytes == 0


class _Quantized:
    """A model in memory, in a circle with itself, as transformers' models are."""

    def __init__(self) -> None:
        self.own = self

    def loss(self, _: Any) -> float:
        return 1.0


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_gpu_row_4_the_model_is_gone_before_the_checkpoint_is_loaded(
    device: str, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    alive: list[weakref.ref[_Quantized]] = []
    order: list[str] = []

    def made(self: Any, job: Any) -> InMemory:
        model = _Quantized()
        alive.append(weakref.ref(model))
        return InMemory(model.loss, 1)

    def emptied() -> None:
        assert alive[0]() is None, "the cache is emptied while the model is still held"
        order.append("emptied")

    def checked(cell: Any, folder: Any, manifest: Any, of: Any, *rest: Any) -> Any:
        assert alive[0]() is None, "the quantized model is still in memory"
        assert of.loss == 1.0
        order.append("loaded again")
        raise CellFailure("unsupported", "far enough")

    cell = Cell(workspace, "small", "bitsandbytes-8")
    monkeypatch.setattr(type(methods.load("bitsandbytes")), "quantize", made)
    monkeypatch.setattr(quantize, "verify", checked)
    monkeypatch.setattr(quantize, "require_groups", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", emptied)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda *_: 7)
    where = _machine(80, 128, device) if device != "cpu" else find("cpu")
    manifest = quantize._manifest(cell, methods.load("bitsandbytes"))
    with pytest.raises(CellFailure, match="far enough"):
        quantize._make(
            cell, methods.load("bitsandbytes"), manifest, tmp_path, where, Progress(quiet=True), 0.0
        )
    assert order == ["loaded again"] if device == "cpu" else ["emptied", "loaded again"]
