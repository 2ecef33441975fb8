"""The driver's view of the GPUs and torch's: torch is asked, in another process, before a run begins."""

from __future__ import annotations

import os
from pathlib import Path

import pynvml
import pytest

from quantlab.errors import QuantlabError
from quantlab.hardware import device, memory, target, torch_view
from quantlab.hardware.device import Gpu, find
from quantlab.hardware.target import target_device
from quantlab.hardware.torch_view import TorchGpu, TorchView, ask_torch
from quantlab.stages import probe

CARD = Gpu(index=0, uuid="GPU-a", name="NVIDIA A10", memory_bytes=24 * 2**30, driver="570.86.15")
OLD = "The NVIDIA driver on your system is too old (found version 12080)"
SEEN = TorchGpu("GPU-a", "NVIDIA A10", 24 * 2**30, 20 * 2**30)


def _torch(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Put a module `torch` with this text where the child looks first."""
    (folder / "torch.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")


def test_gpu_row_17_the_child_tells_what_torch_can_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _torch(
        tmp_path,
        monkeypatch,
        """
class version: cuda = "13.0"
class cuda:
    init = staticmethod(lambda: print("noise"))
    device_count = staticmethod(lambda: 1)
    mem_get_info = staticmethod(lambda n: (5, 9))
    class get_device_properties:
        def __init__(self, n): self.uuid, self.name, self.total_memory = "a", "card", 9
""",
    )
    assert ask_torch() == TorchView(True, "13.0", (TorchGpu("GPU-a", "card", 9, 5),), "")


@pytest.mark.parametrize(
    ("raises", "installed", "cuda"),
    [
        (f'class cuda:\n    def init():\n        raise RuntimeError("{OLD}")', True, "13.0"),
        ("raise ModuleNotFoundError(\"No module named 'numpy'\")", False, None),
        ("import os; os._exit(3)", True, None),
    ],
)
def test_gpu_row_17_what_keeps_torch_from_a_gpu_is_told(
    raises: str, installed: bool, cuda: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _torch(tmp_path, monkeypatch, f'class version: cuda = "13.0"\n{raises}\n')
    found = ask_torch()
    assert (found.installed, found.cuda, found.gpus) == (installed, cuda, ()) and found.trouble


@pytest.mark.parametrize(
    ("view", "said"),
    [
        (TorchView(True, "13.0", (), OLD), r"its CUDA 13\.0 needs driver 580 or newer, this is 570\.86\.15"),
        (TorchView(True, None, (), ""), "this torch was built without CUDA"),
        (
            TorchView(True, "12.8", (), "no CUDA-capable device is detected"),
            "no CUDA-capable device is detected",
        ),
        (TorchView(True, None, (), "it ended the process with code 3"), "it ended the process with code 3"),
    ],
)
def test_gpu_row_17_a_gpu_that_torch_cannot_use_is_refused_before_anything_runs(
    view: TorchView, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it was named or chosen: every stage would fail on it, and it is never replaced by the CPU."""
    monkeypatch.setattr(device, "gpus", lambda: (CARD,))
    monkeypatch.setattr(target, "torch_view", lambda: view)
    for ask in (lambda: probe.run(tmp_path), lambda: target_device(tmp_path, "cuda:0")):
        with pytest.raises(QuantlabError, match=f"torch cannot use cuda:0: .*{said}.*--device cpu") as error:
            ask()
        assert "\n" not in str(error.value)
    assert not (tmp_path / "env").exists()
    assert target_device(tmp_path, "cpu").device == "cpu"


def test_gpu_row_17_torch_is_asked_once_and_only_for_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def view() -> TorchView:
        asked.append(1)
        return TorchView(True, "13.0", (SEEN,), "")

    monkeypatch.setattr(device, "gpus", lambda: (CARD,))
    monkeypatch.setattr(target, "torch_view", view)
    probe.run(tmp_path, "cpu")
    assert not asked
    probe.run(tmp_path)
    assert len(asked) == 1
    assert (
        target_device(tmp_path, None).device == "cuda:0" and len(asked) == 1
    )  # the stages rely on the probe


def test_gpu_row_17_a_gpu_is_found_where_nvml_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container with CUDA's driver and without NVML; without the driver torch is not even asked."""

    def no_nvml() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", no_nvml)
    monkeypatch.setattr("quantlab.hardware.rocm._api", lambda: None)
    view = TorchView(True, "13.0", (SEEN,), "")
    monkeypatch.setattr(torch_view, "torch_view", lambda: view)
    monkeypatch.setattr(torch_view, "has_driver", lambda: False)
    assert find().device == "cpu"
    monkeypatch.setattr(torch_view, "has_driver", lambda: True)
    found = find()
    assert (found.device, found.name, found.memory_bytes) == ("cuda:0", "NVIDIA A10", 24 * 2**30)
    assert found.gpus[0].driver == "unknown"
    monkeypatch.setattr(memory, "ask_torch", lambda: view)
    assert memory.free_vram_bytes((0,)) == {0: 20 * 2**30}
