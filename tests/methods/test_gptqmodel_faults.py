"""A fault of quantlab's own code keeps its traceback where GPTQModel calls it, and is not put down to the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from quantlab.methods._awq_groups import Trial, readers_of_norms
from quantlab.methods._gptqmodel import is_own


def _library(hook: Callable[[], Any] | None = None) -> Callable[[], Any]:
    """A function of GPTQModel's that calls a hook, or fails by itself."""
    namespace: dict[str, Any] = {"__name__": "gptqmodel.looper.some_processor", "hook": hook}
    exec("def run():\n    hook()\n", namespace)
    made: Callable[[], Any] = namespace["run"]
    return made


def _raised(call: Callable[[], Any]) -> BaseException:
    with pytest.raises((TypeError, AttributeError)) as caught:
        call()
    return caught.value


def _faulty_hook() -> None:
    readers_of_norms(Trial(None, (), {}))


def test_a_fault_of_a_hook_is_quantlabs_own() -> None:
    assert is_own(_raised(_faulty_hook))
    assert is_own(_raised(_library(_faulty_hook)))


def test_a_fault_of_the_library_is_its_own() -> None:
    assert not is_own(_raised(_library()))
