"""A method and an engine that another package brings, as one file each: listed, planned, recommended, run and
reported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from trained import RECIPE, trained_llama

OUTSIDE = Path(__file__).parent / "outside"


def quantlab(folder: Path, *arguments: str, code: int = 0) -> Any:
    """Call the command with the other package on the path; what it printed as JSON."""
    path = os.pathsep.join([str(OUTSIDE), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [str(Path(sys.executable).parent / "quantlab"), *arguments, "--json"]
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr[-3000:]
    return json.loads(done.stdout)


def test_they_are_listed(tmp_path: Path) -> None:
    methods = {row["name"]: row for row in quantlab(tmp_path, "list", "methods")["methods"]}
    assert (
        methods["rounded"]["bits"] == [8, 4]
        and methods["rounded"]["summary"] == "round to nearest, for a test"
    )
    assert "sibling" in {row["name"] for row in quantlab(tmp_path, "list", "engines")["engines"]}


def test_it_is_planned_by_its_own_bytes(tmp_path: Path) -> None:
    plan = quantlab(tmp_path, "plan", "llama-3.1-8b", "--gpu", "rtx-4090")
    size = {f"{v['method']}-{v['bits']}": v["weight_bytes"] for v in plan["variants"]}
    assert size["rounded-4"] == size["baseline-16"] > size["gptq-4"]


def test_it_is_recommended_with_the_others(tmp_path: Path) -> None:
    found = quantlab(tmp_path, "recommend", "--vram", "24GB", "--context", "8k")
    assert any(row["variant"] == "rounded-8" for row in [*found["ranked"], *found["rejected"]])


@pytest.mark.slow
def test_it_runs_in_its_engine_and_is_reported(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    arguments = ("run", str(trained_llama()), "--recipe", "recipe.yaml", "--method", "rounded", "--bits", "8")
    found = quantlab(tmp_path, *arguments, "--engine", "sibling", "--device", "cpu")
    data = Path(found["report"]).parent / "data"
    records = {path.stem: json.loads(path.read_text()) for path in (data / "rounded-8").glob("*.json")}
    assert set(records) == {"quantize", "measure", "divergence", "tasks"} and not any(
        r["failure"] for r in records.values()
    )
    assert records["measure"]["engine"] == records["divergence"]["engine"] == "sibling"
    assert 0 < records["divergence"]["kl_divergence_nats"]["value"] < 0.1
    report = Path(found["report"]).read_text()
    assert "rounded-8" in report and "sibling" in report
