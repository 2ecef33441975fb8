"""A workspace of made-up records with its report, made once; tests read it only."""

from __future__ import annotations

from pathlib import Path

import pytest
from madeup import MODEL, write_workspace


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from quantlab.stages.report import run

    root = tmp_path_factory.mktemp("workspace")
    write_workspace(root)
    run(root, MODEL)
    return root


@pytest.fixture(scope="session")
def report(workspace: Path) -> Path:
    """The report's folder."""
    return workspace / "reports" / MODEL
