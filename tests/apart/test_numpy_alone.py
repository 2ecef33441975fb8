"""What a worker imports in another environment: numpy and Python's own library, nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import quantlab.apart

FOLDER = Path(quantlab.apart.__file__).parent
MODULES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in ("__init__", "start"))
_BLOCKED = """
import sys

class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in {*sys.stdlib_module_names, "numpy", "quantlab"}:
            raise ModuleNotFoundError(f"{name} is not in every environment", name=name)

sys.meta_path.insert(0, Refusing())
import runpy
runpy.run_path(sys.argv[1], run_name="a child's")
import importlib
for module in sys.argv[2:]:
    importlib.import_module(f"quantlab.apart.{module}")
import numpy
ours = sorted(name for name in sys.modules if name.startswith("quantlab"))
print(" ".join(ours))
"""


def test_a_worker_needs_numpy_alone_and_little_of_quantlab() -> None:
    command = [sys.executable, "-P", "-c", _BLOCKED, str(FOLDER / "start.py"), *MODULES]
    done = subprocess.run(command, capture_output=True, text=True, env={}, check=False)
    assert done.returncode == 0, done.stderr
    rooms = {name.split(".")[1] for name in done.stdout.split() if "." in name}
    assert rooms == {"apart", "errors", "outside"} and {"arrays", "serving", "vllm_engine"} <= set(MODULES)


def test_the_test_would_find_another_library() -> None:
    code = _BLOCKED + "\nimport pydantic\n"
    command = [sys.executable, "-P", "-c", code, str(FOLDER / "start.py"), "arrays"]
    done = subprocess.run(command, capture_output=True, text=True, env={}, check=False)
    assert done.returncode and "pydantic is not in every environment" in done.stderr


def test_quantlab_is_known_by_name_and_nothing_beside_it_is_found(tmp_path: Path) -> None:
    """Its own environment's packages lie beside it where it is installed: they must not be found."""
    (tmp_path / "quantlab" / "apart").mkdir(parents=True)
    (tmp_path / "quantlab" / "__init__.py").write_text("name = 'a copy'\n")
    (tmp_path / "quantlab" / "apart" / "start.py").write_text((FOLDER / "start.py").read_text())
    (tmp_path / "neighbour.py").write_text("")
    code = "import runpy, sys; runpy.run_path(sys.argv[1]); import quantlab; print(quantlab.name); import neighbour"
    command = [sys.executable, "-P", "-c", code, str(tmp_path / "quantlab" / "apart" / "start.py")]
    done = subprocess.run(command, capture_output=True, text=True, env={}, check=False)
    assert done.stdout.strip() == "a copy" and "No module named 'neighbour'" in done.stderr


@pytest.mark.parametrize("module", MODULES)
def test_nothing_heavy_is_imported_with_a_module(module: str) -> None:
    text = (FOLDER / f"{module}.py").read_text(encoding="utf-8")
    assert not [
        line for line in text.splitlines() if line.startswith(("import torch", "from vllm", "import vllm"))
    ]
