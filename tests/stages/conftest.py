"""A workspace with the small trained model, prepared once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from trained import RECIPE, trained_llama

from quantlab.files import write_text
from quantlab.progress import Progress
from quantlab.stages import prepare

QUIET = Progress(quiet=True)
TASKS = {"set": "embedded", "names": ["copa", "arc_easy"], "items": 12, "batch_size": 4}


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its root; the model is `small`."""
    root = tmp_path_factory.mktemp("workspace")
    variants = {"baseline-16": {}, "bitsandbytes-8": {}}
    recipe = RECIPE | {
        "model": "small",
        "source": {"path": str(trained_llama())},
        "variants": variants,
        "tasks": TASKS,
    }
    write_text(root / "recipes" / "small.yaml", yaml.safe_dump(recipe))
    prepare.run(root, "small", QUIET)
    return root
