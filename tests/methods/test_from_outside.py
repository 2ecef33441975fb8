"""A method and an engine that another package brings, as one file each: listed, planned, recommended, run and
reported."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from trained import RECIPE, trained_llama

from quantlab import registry
from quantlab.cli import main
from quantlab.files import write_text
from quantlab.hardware.device import find
from quantlab.progress import Progress
from quantlab.recommend import candidates
from quantlab.stages import diverge, evaluate, measure, prepare, probe, quantize, reference, report
from quantlab.workspace.cell import Cell
from quantlab.workspace.results import made_with, write_record

OUTSIDE = Path(__file__).parent / "outside"
QUIET = Progress(quiet=True)
STAGES = {"quantize": quantize, "measure": measure, "diverge": diverge, "evaluate": evaluate}
Answer = Callable[..., Any]


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """An empty folder; the other package is on the path of this process and of those that it starts."""
    path = os.pathsep.join([str(OUTSIDE), *filter(None, [os.environ.get("PYTHONPATH")])])
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.syspath_prepend(str(OUTSIDE))
    monkeypatch.chdir(tmp_path)
    _forget()
    assert importlib.metadata.entry_points(group="quantlab.methods", name="rounded")
    yield tmp_path
    _forget()


def _forget() -> None:
    """A process finds packages once, and so plans with the methods that it found."""
    registry._entry_points.cache_clear()
    candidates._planned.cache_clear()


@pytest.fixture
def quantlab(outside: Path) -> Answer:
    """Call a command in this process; what it printed as JSON."""

    def run(*arguments: str) -> Any:
        result = CliRunner().invoke(main, [*arguments, "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return run


def test_they_are_listed(quantlab: Answer) -> None:
    methods = {row["name"]: row for row in quantlab("list", "methods")["methods"]}
    assert (
        methods["rounded"]["bits"] == [8, 4]
        and methods["rounded"]["summary"] == "round to nearest, for a test"
    )
    assert "sibling" in {row["name"] for row in quantlab("list", "engines")["engines"]}


def test_it_is_planned_by_its_own_bytes(quantlab: Answer) -> None:
    plan = quantlab("plan", "llama-3.1-8b", "--gpu", "rtx-4090")
    size = {f"{v['method']}-{v['bits']}": v["weight_bytes"] for v in plan["variants"]}
    assert size["rounded-4"] == size["baseline-16"] > size["gptq-4"]


def test_it_is_recommended_with_the_others(quantlab: Answer) -> None:
    answer = quantlab("recommend", "--vram", "24GB", "--context", "8k")
    assert any(row["variant"] == "rounded-8" for row in [*answer["ranked"], *answer["rejected"]])


@pytest.mark.engines
def test_its_stages_run_in_its_engine_and_are_reported(outside: Path) -> None:
    variants: dict[str, Any] = {"baseline-16": {}, "rounded-8": {}}
    recipe = RECIPE | {"model": "small", "source": {"path": str(trained_llama())}, "variants": variants}
    write_text(outside / "recipes" / "small.yaml", yaml.safe_dump(recipe | {"engine": "sibling"}))
    device = find("cpu")
    probe.run(outside, "cpu", ["small"])
    prepare.run(outside, "small", QUIET)
    reference.run(outside, "small", device, QUIET)
    for slug in variants:
        cell = Cell(outside, "small", slug)
        for stage in STAGES.values():
            write_record(outside, made_with(stage.run(cell, device, QUIET), cell.recipe))
    check(report.run(outside, "small"))


@pytest.mark.engines
def test_it_runs_by_the_command(tmp_path: Path) -> None:
    """The same under DVC, each stage in a process of its own."""
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    path = os.pathsep.join([str(OUTSIDE), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [str(Path(sys.executable).parent / "quantlab"), "run", str(trained_llama())]
    command += ["--recipe", "recipe.yaml", "--method", "rounded", "--bits", "8"]
    done = subprocess.run(
        [*command, "--engine", "sibling", "--device", "cpu", "--json"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    check(Path(json.loads(done.stdout)["report"]))


def check(path: Path) -> None:
    """Every stage of the variant left numbers, from its own engine, and the report shows it."""
    records = {
        each.stem: json.loads(each.read_text())
        for each in (path.parent / "data" / "rounded-8").glob("*.json")
    }
    assert set(records) == {"quantize", "measure", "divergence", "tasks"} and not any(
        record["failure"] for record in records.values()
    )
    assert records["measure"]["engine"] == records["divergence"]["engine"] == "sibling"
    assert 0 < records["divergence"]["kl_divergence_nats"]["value"] < 0.1
    text = path.read_text()
    assert "rounded-8" in text and "sibling" in text
