"""A workspace of made-up records, made once; tests read it only."""

from __future__ import annotations

from pathlib import Path

import pytest
from madeup import MODEL, write_workspace

from quantlab.comparison.compare import Comparison, compare
from quantlab.comparison.load import load_model


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("workspace")
    write_workspace(root)
    return root


@pytest.fixture(scope="session")
def compared(workspace: Path) -> Comparison:
    return compare(load_model(workspace, MODEL))
