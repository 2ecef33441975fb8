"""With the real DVC: what failed for a reason that passes is run again, by plain `dvc repro` too; what is so
for good is not."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

import pytest
import yaml

from quantlab.run.retries import LOG, retry_transient, transient

STUB = """
import json, sys
from pathlib import Path
stage, record, cell = sys.argv[1:]
failure = Path(f"{cell}.failure")  # no dependency: what it says is from outside
with Path("ran").open("a") as file:
    print(stage, cell, file=file)
out = Path("reports/m/data", cell, f"{record}.json")
out.parent.mkdir(parents=True, exist_ok=True)
why = json.loads(failure.read_text()) if failure.exists() else None
out.write_text(json.dumps({"model": "m", "variant": cell, "failure": why}) + "\\n")
if record == "quantize":
    made = Path("checkpoints/m", cell)
    made.mkdir(parents=True, exist_ok=True)
    (made / "manifest.json").write_text(out.read_text())
"""
PROBE = (
    "import sys; from pathlib import Path; from quantlab.run.retries import retry_transient;"
    " retry_transient(Path.cwd()); "
)
PROBE += "Path('env').mkdir(exist_ok=True); Path('env/a.json').write_text('{}')"
CELLS = ("gguf-8", "gptq-4")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A workspace of DVC in which stubs stand for the stages, and probe does what probe does to failures."""
    (tmp_path / "stub.py").write_text(STUB)
    (tmp_path / "probe.py").write_text(PROBE)
    stages: dict[str, object] = {
        "probe": {
            "cmd": f"{sys.executable} probe.py",
            "always_changed": True,
            "outs": [{"env": {"cache": False}}],
        }
    }
    for stage, record, deps in (
        ("quantize", "quantize", ["env/a.json"]),
        ("measure", "measure", ["env/a.json", "checkpoints/m/${item.variant}/manifest.json"]),
    ):
        outs: list[object] = [{f"reports/m/data/${{item.variant}}/{record}.json": {"cache": False}}]
        outs += ["checkpoints/m/${item.variant}"] if stage == "quantize" else []
        command = f"{sys.executable} stub.py {stage} {record} ${{item.variant}}"
        stages[stage] = {"foreach": "${cells}", "do": {"cmd": command, "deps": deps, "outs": outs}}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    (tmp_path / "params.yaml").write_text(
        yaml.safe_dump({"cells": {f"m--{v}": {"model": "m", "variant": v} for v in CELLS}})
    )
    _dvc(tmp_path, "init", "--no-scm", "--quiet")
    return tmp_path


def _dvc(root: Path, *arguments: str) -> None:
    from dvc.cli import main

    with contextlib.chdir(root):
        assert main(list(arguments)) == 0


def _repro(root: Path, *targets: str) -> list[str]:
    (root / "ran").unlink(missing_ok=True)
    _dvc(root, "repro", "--quiet", *targets)
    return sorted((root / "ran").read_text().splitlines()) if (root / "ran").exists() else []


def _fail(root: Path, cell: str, kind: str | None) -> None:
    file = root / f"{cell}.failure"
    file.write_text(json.dumps({"kind": kind, "reason": "so it was"})) if kind else file.unlink()


def test_a_transient_failure_is_retried_and_a_lasting_one_is_not(root: Path) -> None:
    _fail(root, "gguf-8", "disk_full")
    _fail(root, "gptq-4", "unsupported")
    assert _repro(root) == ["measure gguf-8", "measure gptq-4", "quantize gguf-8", "quantize gptq-4"]
    _fail(root, "gguf-8", None)
    # neither dvc.lock nor DVC's run cache brings the failure back
    assert _repro(root) == ["measure gguf-8", "quantize gguf-8"]
    assert json.loads((root / "reports/m/data/gguf-8/measure.json").read_text())["failure"] is None
    assert _repro(root) == []
    noted = [json.loads(line) for line in (root / LOG).read_text().splitlines()]
    assert [(n["stage"], n["kind"], n["reason"]) for n in noted] == [
        ("quantize@m--gguf-8", "disk_full", "so it was"),
        ("measure@m--gguf-8", "disk_full", "so it was"),
    ]


def test_a_failure_whose_stage_is_not_asked_for_stays_on_record(root: Path) -> None:
    _fail(root, "gguf-8", "killed")
    _repro(root)
    assert _repro(root, "measure@m--gptq-4") == []
    assert [one.stage for one in transient(root)] == ["quantize@m--gguf-8", "measure@m--gguf-8"]
    _fail(root, "gguf-8", None)
    assert _repro(root) == ["measure gguf-8", "quantize gguf-8"]


def test_failures_deep_in_a_record_are_seen_and_imported_ones_are_not(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(
        yaml.safe_dump({"cells": {"m--a-4": {"model": "m", "variant": "a-4"}}, "gguf_models": ["m"]})
    )
    for place, content in (
        (
            "reports/m/data/a-4/measure.json",
            {"speed": {"points": [{"failure": {"kind": "killed", "reason": "deep"}}]}},
        ),
        ("reports/m/data/a-4/tasks.json", {"failure": {"kind": "out_of_memory", "reason": "for good"}}),
        ("models/m/gguf/gguf.json", {"failure": {"kind": "disk_full", "reason": "whole"}}),
        ("imported/h100/m/data/a-4/measure.json", {"failure": {"kind": "killed", "reason": "theirs"}}),
    ):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(json.dumps(content) + "\n")
    assert [str(one) for one in retry_transient(tmp_path)] == [
        "measure@m--a-4 is tried again: killed: deep",
        "convert@m is tried again: disk_full: whole",
    ]
