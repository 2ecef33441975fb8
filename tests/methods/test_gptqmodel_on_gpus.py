"""How GPTQModel is called where a GPU quantizes, on a GPU that is pretended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantlab.files import write_json
from quantlab.methods import Job, _gptqmodel, load
from quantlab.methods._contract import InMemory
from quantlab.models.tiny import family
from quantlab.progress import Progress


class Stopped(Exception):
    """The library was called."""


class Library:
    """Stands for GPTQModel, and keeps how it was called."""

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}

    def load(self, *_: Any, **given: Any) -> Library:
        self.asked |= {"loaded": given}
        return self

    def quantize(self, windows: Any, **given: Any) -> None:
        self.asked |= {"quantized": given}
        raise Stopped


def _job(tmp_path: Path, bits: int, method: str, device: str = "cuda:0") -> Job:
    write_json(
        tmp_path / "config.json", family("llama").fields | {"model_type": "llama", "dtype": "bfloat16"}
    )
    return Job(
        source=tmp_path,
        bits=bits,
        settings=load(method).Settings(),
        calibration=np.zeros((2, 8), np.int64),
        destination=tmp_path / "made",
        device=device,
        seed=0,
        progress=Progress(quiet=True),
    )


@contextmanager
def _nothing(*_: Any) -> Iterator[list[str]]:
    yield []


@pytest.mark.parametrize(
    ("method", "bits", "kernel"),
    [("awq", 4, "AWQ_TORCH"), ("awq", 3, "AWQ_TORCH"), ("gptq", 4, "GPTQ_TORCH")],
)
def test_gpu_row_2_layers_are_packed_by_a_kernel_that_runs_on_the_cpu(
    method: str, bits: int, kernel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gptqmodel
    from gptqmodel.models._const import DEVICE
    from gptqmodel.utils.backend import BACKEND, awq_gemm_pack_backend, normalize_backend
    from gptqmodel.utils.importer import get_kernel_for_backend

    library = Library()
    monkeypatch.setattr(gptqmodel, "GPTQModel", library)
    monkeypatch.setattr("quantlab.methods.awq._mended", _nothing)
    monkeypatch.setattr(_gptqmodel, "is_own", lambda *_: True)
    with pytest.raises(Stopped):
        load(method).quantize(_job(tmp_path, bits, method))
    packs_with = normalize_backend(library.asked["quantized"]["backend"], quant_method=method)
    assert packs_with == BACKEND[kernel]
    layout = gptqmodel.quantization.FORMAT.GEMM if method == "awq" else gptqmodel.quantization.FORMAT.GPTQ
    kind = get_kernel_for_backend(packs_with, gptqmodel.quantization.METHOD(method), layout)
    assert DEVICE.ALL in kind.SUPPORTS_DEVICES and bits in kind.SUPPORTS_BITS
    # what the library takes by itself on a GPU: it packs tensors on a GPU alone, and 4 bits alone
    by_itself = awq_gemm_pack_backend(device_type="cuda", is_rocm=False, weight_only=False)
    own = (
        get_kernel_for_backend(by_itself, gptqmodel.quantization.METHOD.AWQ, layout)
        if method == "awq"
        else None
    )
    assert own is None or (own.SUPPORTS_DEVICES == [DEVICE.CUDA] and own.SUPPORTS_BITS == [4])


@pytest.mark.parametrize(
    ("device", "own", "noted"),
    [("cuda:0", "bfloat16", True), ("cuda:0", "float16", False), ("cpu", "bfloat16", False)],
)
def test_gpu_row_19_that_awq_runs_in_float16_is_noted(
    device: str, own: str, noted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_gptqmodel, "quantize", lambda *_, **__: InMemory(None, 1, ("a note",)))
    job = _job(tmp_path, 4, "awq", device)
    write_json(tmp_path / "config.json", {"dtype": own})
    notes = load("awq").quantize(job).notes
    assert notes[0] == "a note" and (len(notes) == 2 and "float16" in notes[1]) == noted


def test_gpu_row_19_transformers_forces_float16_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the note says, by the library's own function; somebody else's checkpoint has the note too."""
    import torch
    from transformers import AwqConfig
    from transformers.quantizers.quantizer_awq import AwqQuantizer

    quantizer = AwqQuantizer(AwqConfig(bits=4))
    assert quantizer.update_dtype(torch.bfloat16) == torch.bfloat16
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert quantizer.update_dtype(torch.bfloat16) == torch.float16
    assert load("awq").reading_notes({}, "cuda:0") and not load("awq").reading_notes({}, "cpu")
