"""The contract of every file in quantlab/methods and quantlab/engines: a new one is checked by being
there."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from quantlab import engines, methods

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


@pytest.mark.parametrize("name", methods.names())
def test_a_method_keeps_the_contract(name: str) -> None:
    method = methods.load(name)
    assert method.summary and method.__doc__
    assert list(method.bits) == sorted(method.bits, reverse=True) and set(method.bits) <= set(range(1, 17))
    assert method.format in {f for e in engines.names() for f in engines.load(e).formats}
    assert method.starts_from in ("source", "gguf") and (method.extra is None or method.extra in EXTRAS)
    assert issubclass(method.Settings, BaseModel) and method.Settings().model_config.get("extra") == "forbid"
    assert method.requires and callable(method.quantize)


def test_listing_methods_and_engines_imports_no_torch() -> None:
    code = (
        "import sys; from quantlab import engines, methods; [methods.load(n) for n in methods.names()]; "
        "[engines.load(n) for n in engines.names()]; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_workspace_uses_the_shipped_pipeline() -> None:
    assert (ROOT / "dvc.yaml").read_text() == (ROOT / "quantlab/run/dvc.yaml").read_text()
