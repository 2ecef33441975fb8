"""A whole run that is killed, interrupted, stopped or short of disk again and again ends with the undisturbed
run's figures."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from trained import RECIPE, tokenizer

pytestmark = pytest.mark.faults
STAGE_SECONDS = 300.0
"""Until the next stage begins, on a machine that is busy with others."""
LEFT_SECONDS = 30.0
EVENTS: tuple[tuple[str, str, float], ...] = (
    ("probe", "SIGKILL", 0.2),
    ("prepare@tiny", "SIGKILL", 0.5),
    ("prepare@tiny", "SIGKILL", 4.0),
    ("convert@tiny", "SIGTERM", 2.0),
    ("convert@tiny", "SIGKILL", 4.0),
    ("reference@tiny", "SIGKILL", 3.0),
    ("quantize@tiny--baseline-16", "child", 1.0),
    ("quantize@tiny--gguf-8", "SIGKILL", 3.0),
    ("measure@tiny--gguf-16", "SIGKILL", 5.0),
    ("measure@tiny--gguf-8", "SIGHUP", 6.0),
    ("measure@tiny--gguf-8", "SIGKILL", 1.0),
    ("diverge@tiny--gguf-8", "SIGINT", 2.0),
    ("diverge@tiny--gguf-8", "SIGKILL", 4.0),
    ("evaluate@tiny--baseline-16", "SIGKILL", 6.0),
    ("evaluate@tiny--gguf-16", "SIGKILL", 5.0),
    ("evaluate@tiny--gguf-8", "stopped", 2.0),
    ("report@tiny", "SIGKILL", 0.5),
)
"""In which stage, what happens, how many seconds after it began. A stage that is over already is passed
by."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of a megabyte."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("killed") / "tiny"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer(folder, 512)),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.1,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    recipe = RECIPE | {"model": "tiny", "source": {"path": str(folder)}, "variants": {"gguf-8": {}}}
    (folder.parent / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder


class Run:
    """`quantlab run` in a workspace, with its output as it comes."""

    def __init__(self, model: Path, workspace: Path, limit_bytes: int | None = None) -> None:
        self.workspace, self.log = workspace, workspace.with_suffix(".log")
        command = [
            str(Path(sys.executable).parent / "quantlab"),
            "run",
            str(model),
            "--workspace",
            str(workspace),
        ]
        command += ["--recipe", str(model.parent / "recipe.yaml"), "--method", "gguf", "--bits", "8"]

        def limit() -> None:
            if limit_bytes:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))

        with self.log.open("w") as out:
            self.process = subprocess.Popen(
                command, cwd=model.parent, stdout=out, stderr=subprocess.STDOUT, preexec_fn=limit
            )

    def reaches(self, stage: str) -> bool:
        """Wait until a stage runs; False where the run ends without it."""
        end = time.monotonic() + STAGE_SECONDS
        while time.monotonic() < end:
            if f"Running stage '{stage}'" in self.said():
                return True
            if self.process.poll() is not None or f"Stage '{stage}' didn't change" in self.said():
                return False
            time.sleep(0.05)
        raise AssertionError(f"{stage} did not begin: {self.said()[-2000:]}")

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def end(self) -> int:
        return self.process.wait(timeout=4 * STAGE_SECONDS)


def _working_in(folder: Path) -> list[str]:
    """Command lines of the processes that work in a folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if Path(process.cwd()).is_relative_to(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
    return found


def _nobody_works_in(folder: Path) -> bool:
    end = time.monotonic() + LEFT_SECONDS
    while time.monotonic() < end:
        if not _working_in(folder):
            return True
        time.sleep(0.1)
    return False


def figures(workspace: Path) -> dict[str, Any]:
    """Every figure that does not depend on the clock."""
    found: dict[str, Any] = {}
    for path in sorted((workspace / "reports/tiny/data").rglob("*")):
        name = path.relative_to(workspace).as_posix()
        if path.name in ("divergence.json", "tasks.json"):
            found[name] = {
                key: value for key, value in json.loads(path.read_text()).items() if key != "seconds"
            }
        elif path.name == "measure.json":
            record = json.loads(path.read_text())
            points = (record["speed"] or {"points": []})["points"]
            found[name] = [
                record["failure"],
                record["checkpoint_sha256"],
                [point["failure"] for point in points],
            ]
        elif path.name == "quantize.json":
            record = json.loads(path.read_text())
            found[name] = {
                key: record[key]
                for key in (
                    "failure",
                    "checkpoint_sha256",
                    "stored_bytes",
                    "disk_bytes",
                    "loss_reloaded_nats",
                )
            }
        elif path.name == "samples.parquet":
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def leftovers(workspace: Path) -> list[str]:
    """Temporary folders and unfinished files."""
    inside = [
        path
        for path in workspace.rglob("*")
        if path.name.startswith((".partial-", "quantlab-offload-", "tmp.", "pymp-"))
    ]
    base = workspace / ".quantlab" / "tmp"
    return [str(path) for path in [*inside, *(p for p in base.glob("*") if p.name != ".lock")]]


def _child_of(run: Run) -> psutil.Process:
    """The process that does the work of the stage that runs."""
    end = time.monotonic() + STAGE_SECONDS
    while time.monotonic() < end:
        for process in psutil.Process(run.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if "quantlab.stages" in process.cmdline():
                    return process
        time.sleep(0.05)
    raise AssertionError(f"no stage works: {run.said()[-2000:]}")


def _happen(run: Run, what: str) -> None:
    """One event, and what must hold after it."""
    if what == "child":
        _child_of(run).kill()
        return
    if what == "stopped":
        tree = [psutil.Process(run.process.pid), *psutil.Process(run.process.pid).children(recursive=True)]
        for action in ("suspend", "resume"):
            for process in tree:
                with contextlib.suppress(psutil.Error):
                    getattr(process, action)()
            time.sleep(1)
        return
    number = signal.Signals[what]
    run.process.send_signal(number)
    code = run.process.wait(timeout=60)
    assert code == (-number if what == "SIGKILL" else 128 + number), run.said()[-2000:]
    assert _nobody_works_in(run.workspace), _working_in(run.workspace)


@pytest.fixture(scope="module")
def undisturbed(model: Path) -> dict[str, Any]:
    """The figures of a run that nobody disturbed."""
    run = Run(model, model.parent / "undisturbed")
    assert run.end() == 0, run.said()[-3000:]
    assert leftovers(run.workspace) == []
    found = figures(run.workspace)
    assert len(found) == 15 and not any(
        value["failure"] for value in found.values() if isinstance(value, dict)
    )
    return found


@pytest.fixture
def workspace(model: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Run]]:
    """Start runs in a workspace of the test's own; nothing of it outlives the test."""
    started: list[Run] = []

    def start(limit_bytes: int | None = None) -> Run:
        started.append(Run(model, model.parent / request.node.name.partition("[")[0], limit_bytes))
        return started[-1]

    yield start
    for run in started:
        if run.process.poll() is None:
            run.process.kill()
            run.process.wait()


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_figures(
    workspace: Callable[..., Run], request: pytest.FixtureRequest
) -> None:
    happened, run = [], workspace()
    for stage, what, seconds in EVENTS:
        if run.process.poll() is not None:
            run = workspace()
        if not run.reaches(stage):
            continue
        time.sleep(seconds)
        if run.process.poll() is None and run.said().rpartition("Running stage '")[2].startswith(stage):
            _happen(run, what)
            happened.append((stage, what))
            print(f"{time.strftime('%X')} {stage}: {what}", flush=True)
    assert run.process.poll() is not None or run.end() == 0
    last = workspace()
    assert last.end() == 0, last.said()[-3000:]
    print(f"{len(happened)} of {len(EVENTS)} events came in time: {happened}")
    assert len([what for _, what in happened if what == "SIGKILL"]) >= 6 and len(happened) >= 10
    assert figures(last.workspace) == request.getfixturevalue("undisturbed")
    assert leftovers(last.workspace) == [] and _working_in(last.workspace) == []


def test_a_limit_on_files_is_no_property_of_the_model(
    workspace: Callable[..., Run], undisturbed: dict[str, Any]
) -> None:
    short = workspace(limit_bytes=600_000)
    short.end()
    made = json.loads((short.workspace / "models/tiny/gguf/gguf.json").read_text())
    assert made["failure"]["kind"] == "disk_full", made
    again = workspace()
    assert again.end() == 0, again.said()[-3000:]
    assert "convert@tiny is tried again: disk_full" in again.said()
    assert figures(again.workspace) == undisturbed and leftovers(again.workspace) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small disk")
def test_a_full_disk_is_no_property_of_the_model(
    workspace: Callable[..., Run], model: Path, undisturbed: dict[str, Any]
) -> None:
    folder = model.parent / "test_a_full_disk_is_no_property_of_the_model"
    folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)], check=False
    ).returncode:
        pytest.skip("no small disk can be mounted here")
    try:
        run = workspace()
        assert run.reaches("quantize@tiny--gguf-8")
        with contextlib.suppress(OSError), (folder / "filler").open("wb") as file:
            while True:
                file.write(bytes(4096))
                file.flush()
        run.end()
        refused = workspace()
        assert refused.end() == 2 and "No space left on device; make room" in refused.said().splitlines()[-1]
        (folder / "filler").unlink()
        again = workspace()
        assert again.end() == 0, again.said()[-3000:]
        assert figures(again.workspace) == undisturbed and leftovers(again.workspace) == []
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)
