"""The campaign of faults: every test here is marked `faults`, and the run ends with `tried N, right N, wrong
N`.

`make test-faults` runs all of it; `make test` runs what is marked `quick` as well.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from bounded import Attempt, attempt
from world import World

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("faults")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    def faults(outcome: str) -> int:
        reports = terminalreporter.stats.get(outcome, [])
        return sum(
            "tests/faults/" in report.nodeid and (outcome != "passed" or report.when == "call")
            for report in reports
        )

    right, wrong = faults("passed"), faults("failed") + faults("error")
    if right + wrong:
        terminalreporter.write_line(f"tried {right + wrong}, right {right}, wrong {wrong}")


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where what all worlds share is made once."""
    return tmp_path_factory.mktemp("faults")


@pytest.fixture
def world(tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A folder with a model, a recipe and a workspace, which is the current one."""
    made = World.make(tmp_path / "world", store)
    monkeypatch.chdir(made.root)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made


@pytest.fixture
def tried(world: World) -> Attempt:
    """Run a command line in the world."""
    return attempt(world.root)
