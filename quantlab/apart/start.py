"""Begin a worker in another environment's interpreter: `python -P start.py MODULE LOG`.

Run by its path, because quantlab is not installed there, and its own environment's packages must not be found
there. The package is made known under its name alone, also in the processes that a library of the worker
starts: they run this file again."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path


def introduce(package: Path) -> None:
    """Let `import quantlab` find this folder, and nothing that lies beside it."""
    if "quantlab" in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(
        "quantlab", package / "__init__.py", submodule_search_locations=[str(package)]
    )
    assert spec is not None and spec.loader is not None
    module = sys.modules["quantlab"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


introduce(Path(__file__).resolve().parents[1])

if __name__ == "__main__":
    serving = importlib.import_module("quantlab.apart.serving")
    serving.main(sys.argv[1], Path(sys.argv[2]))
