"""Nothing that was made from other weights or with other settings passes for a result of this run, under the
real DVC."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from quantlab.recipe import Recipe, parse_recipe
from quantlab.run import workspace as workspaces
from quantlab.run.workspace import Workspace

STAND_IN = Path(__file__).with_name("stand_in.py")
SLUG = "baseline-16"
STAGES = ["prepare", "quantize", "measure", "reference", "diverge", "evaluate"]


def recipe_of(source: Path, **sections: object) -> Recipe:
    return parse_recipe(
        {"model": "m", "source": {"path": str(source)}, "variants": {SLUG: {}}, **sections}, "m"
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stale") / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(64))
    return folder


@pytest.fixture(scope="module")
def made(source: Path) -> Iterator[Workspace]:
    """A workspace of one cell, run once; DVC's `quantlab` is the stand-in. Each test leaves it as it should
    be."""
    commands = source.parent / "commands"
    commands.mkdir()
    (commands / "quantlab").write_text(f'#!/bin/sh\nexec "{sys.executable}" "{STAND_IN}" "$@"\n')
    (commands / "quantlab").chmod(0o755)
    found = Workspace(source.parent / "workspace")
    found.add(recipe_of(source, tasks={"items": 5}), [SLUG], "cpu")
    found._dvc("config", "cache.type", "hardlink")
    real = workspaces.environment()
    stood_in = real | {
        "PATH": f"{commands}{os.pathsep}{real['PATH']}",
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workspaces, "environment", lambda: stood_in)
        run(found)
        yield found


def run(workspace: Workspace) -> list[str]:
    """`dvc repro` of the cell; the stages that ran."""
    log = workspace.root / "ran.log"
    log.unlink(missing_ok=True)
    target = [f"{stage}@m--{SLUG}" for stage in ("quantize", "measure", "diverge", "evaluate")]
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro", *target],
        cwd=workspace.root,
        env=workspaces.environment(),
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return sorted(log.read_text().split() if log.exists() else [])


def n(workspace: Workspace) -> str:
    return str(json.loads((workspace.root / f"reports/m/data/{SLUG}/tasks.json").read_text())["notes"][0])


@pytest.mark.slow
def test_another_model_in_the_same_folder_is_measured_and_the_same_is_not(
    made: Workspace, source: Path
) -> None:
    assert run(made) == []
    weights = source / "model.safetensors"
    before = weights.stat()
    other = source / "other"
    other.write_bytes(bytes(63) + b"1")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns - 10**12))
    other.replace(weights)  # the same size and an older time
    assert run(made) == sorted(STAGES)


@pytest.mark.slow
def test_a_recipe_that_was_changed_while_its_stage_ran_is_measured_again(made: Workspace) -> None:
    path = made.root / "recipes" / "m.yaml"
    path.write_text(path.read_text().replace("items: 5", "items: 4"))
    (made.root / "edit").write_text("6")
    assert run(made) == ["evaluate"] and n(made) == "n = 4"
    lock = yaml.safe_load((made.root / "dvc.lock").read_text())["stages"][f"evaluate@m--{SLUG}"]
    assert lock["params"]["recipes/m.yaml"]["tasks"]["items"] == 6  # as DVC has it
    assert run(made) == ["evaluate"] and n(made) == "n = 6"


@pytest.mark.slow
def test_damage_in_place_is_not_linked_back_from_dvcs_cache(
    made: Workspace, capfd: pytest.CaptureFixture[str]
) -> None:
    weights = made.root / "checkpoints" / "m" / SLUG / "model.safetensors"
    whole, before = weights.read_bytes(), weights.stat()
    assert before.st_nlink == 2  # DVC's cache has the other name
    weights.chmod(0o644)
    weights.write_bytes(whole[:-2] + b"x" + whole[-1:])
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    weights.chmod(0o444)
    made.reproduce("m", [SLUG], quiet=True)
    assert weights.read_bytes() == whole
    assert f"checkpoints/m/{SLUG} was changed after it was made: it is made again" in capfd.readouterr().err


def test_a_second_run_waits_before_it_writes_anything(tmp_path: Path) -> None:
    first, second = Workspace(tmp_path), Workspace(tmp_path)
    said: list[str] = []
    told, written = threading.Event(), threading.Event()

    def wait() -> None:
        with second.held(lambda line: (said.append(line), told.set())[0]):
            written.set()

    with first.held(said.append):
        thread = threading.Thread(target=wait)
        thread.start()
        assert told.wait(20) and not written.wait(0.2)
    assert written.wait(20)
    thread.join()
    assert len(said) == 1 and said[0].startswith(
        f"another `quantlab run` works in {tmp_path}: waiting until it ends"
    )


@pytest.mark.slow
def test_the_command_waits_with_a_message(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-c",
        "from quantlab.cli import main; main()",
        "run",
        "smollm2",
        "--variant",
        "gguf-4",
        "--no-run",
    ]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    workspace = Workspace(tmp_path / "runs" / "smollm2")
    with workspace.held(print):
        second = subprocess.Popen(
            command,
            cwd=tmp_path,
            env=environment,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        assert second.stderr is not None
        line = second.stderr.readline()
        assert "waiting until it ends" in line and not (workspace.root / "recipes").exists()
    with second:
        assert second.wait(60) == 0
    assert (workspace.root / "recipes" / "smollm2.yaml").exists()
