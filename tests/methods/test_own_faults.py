"""A fault of quantlab's own code keeps its traceback where a library calls it, and is not put down to the model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantlab.errors import CellFailure
from quantlab.methods import Job, autoround
from quantlab.methods._awq_groups import Trial, readers_of_norms
from quantlab.models.tiny import build, family
from quantlab.outside import is_own
from quantlab.progress import Progress

LIBRARIES = ("gptqmodel", "auto_round")


def _library(package: str, hook: Callable[[], Any] | None = None) -> Callable[[], Any]:
    """A function of a library's that calls a hook, or fails by itself."""
    namespace: dict[str, Any] = {"__name__": f"{package}.inside.some_processor", "hook": hook}
    exec("def run():\n    hook()\n", namespace)
    made: Callable[[], Any] = namespace["run"]
    return made


def _raised(call: Callable[[], Any]) -> BaseException:
    with pytest.raises((TypeError, AttributeError)) as caught:
        call()
    return caught.value


def _faulty_hook() -> None:
    readers_of_norms(Trial(None, (), {}))


@pytest.mark.parametrize("package", LIBRARIES)
def test_a_fault_of_a_hook_is_quantlabs_own(package: str) -> None:
    assert is_own(_raised(_faulty_hook), package)
    assert is_own(_raised(_library(package, _faulty_hook)), package)


@pytest.mark.parametrize("package", LIBRARIES)
def test_a_fault_of_the_library_is_its_own(package: str) -> None:
    assert not is_own(_raised(_library(package)), package)


class _Rounding:
    """In place of auto-round's object."""

    def __init__(self, quantize: Callable[[], Any]) -> None:
        self.quantize = quantize


def _quantize(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, run: Callable[[], Any]) -> None:
    windows = np.zeros((1, 16), np.int64)
    monkeypatch.setattr(autoround, "_loaded", lambda job: (build(family("llama")), windows))
    monkeypatch.setattr(autoround, "_rounding", lambda job, model, windows: _Rounding(run))
    settings = autoround.Settings(group_size=32)
    job = Job(tmp_path, 4, settings, windows, tmp_path / "made", "cpu", 0, Progress(quiet=True))
    autoround.METHOD.quantize(job)


def test_autoround_tells_its_librarys_faults_from_quantlabs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(CellFailure, match="auto-round stops at this model: TypeError"):
        _quantize(monkeypatch, tmp_path, _library("auto_round"))
    with pytest.raises((TypeError, AttributeError)):
        _quantize(monkeypatch, tmp_path, _library("auto_round", _faulty_hook))
