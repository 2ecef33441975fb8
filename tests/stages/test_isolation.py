"""A stage that dies leaves a record that says of what, and nothing of an earlier run."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import yaml

from quantlab import outside
from quantlab.errors import CellFailure, QuantlabError
from quantlab.measuring.sampling_client import sample_file
from quantlab.outside import as_failure
from quantlab.recipe import read_recipe
from quantlab.records import STAGES, MeasureRecord, StageName
from quantlab.records.measured import Sample, SampledMemory
from quantlab.stages.isolation import environment_of, run_isolated
from quantlab.workspace.cell import Cell
from quantlab.workspace.logs import log_path
from quantlab.workspace.results import is_stale, read_record, record_path


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "m.yaml").write_text(
        yaml.safe_dump({"model": "m", "source": {"path": "/m"}, "variants": {"gptq-4": {}}})
    )
    return Cell(tmp_path, "m", "gptq-4")


def _child(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Let a shell script stand for the interpreter of the child."""
    path = folder / "child"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))


@pytest.mark.parametrize(
    ("script", "kind", "said"),
    [
        ("kill -KILL $$", "killed", "killed from outside (signal 9"),
        ("kill -TERM $$", "killed", "ended from outside (SIGTERM); the next run tries it again"),
        ("kill -SEGV $$", "crashed", "died of SIGSEGV"),
        ("kill -ILL $$", "crashed", "--force-reinstall --no-deps 'llama-cpp-python==0.3.36' builds it"),
        ("exit 3", "crashed", "ended with code 3"),
    ],
)
@pytest.mark.parametrize("stage", ["quantize", "measure", "diverge", "evaluate"])
def test_a_death_is_recorded(
    cell: Cell,
    stage: StageName,
    script: str,
    kind: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outside, "memory_kills", lambda: 0)
    _child(tmp_path, monkeypatch, script)
    record = run_isolated(cell, stage, "cpu", quiet=True)
    assert record.failure and record.failure.kind == kind and said in record.failure.reason
    if stage == "quantize":
        with pytest.raises(Exception, match=re.escape(said)):
            cell.checkpoint()
    if stage == "evaluate":
        assert (cell.data_folder / "samples.parquet").exists()


@pytest.mark.parametrize(
    ("device", "shown", "visible", "seen"),
    [
        ("cpu", None, "", "cpu"),
        ("cpu", "2,3", "", "cpu"),
        ("cuda:1", None, "1", "cuda:0"),
        ("cuda:1", "GPU-a,GPU-b", "GPU-b", "cuda:0"),
        ("cuda:1,0,cpu,disk", "4,5", "5,4", "cuda:0,1,cpu,disk"),
    ],
)
def test_gpu_row_3_the_quantizer_sees_the_gpus_that_were_named_alone(
    device: str,
    shown: str | None,
    visible: str,
    seen: str,
    cell: Cell,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """GPTQModel takes the first GPU that it sees and every other, whatever device it is given."""
    if shown is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    said = tmp_path / "said"
    _child(tmp_path, monkeypatch, f"""echo "$CUDA_VISIBLE_DEVICES $4" > {said}; exit 3""")
    run_isolated(cell, "quantize", device, quiet=True)
    told, _, job = said.read_text().partition(" ")
    assert told == visible and json.loads(job)["device"] == seen


@pytest.mark.parametrize("stage", ["measure", "diverge", "evaluate"])
def test_gpu_row_3_cpu_hides_every_gpu(stage: StageName, cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert environment_of(cell, stage, "cpu")["CUDA_VISIBLE_DEVICES"] == ""
    assert environment_of(cell, stage, "cuda:1")["CUDA_VISIBLE_DEVICES"] == "0,1"


def test_an_abort_for_want_of_gpu_memory_is_no_crash(
    cell: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = log_path(cell, "diverge")
    log.parent.mkdir(parents=True)
    log.write_text("CUDA error: out of memory\n")  # of an earlier run
    _child(tmp_path, monkeypatch, "kill -ABRT $$")
    record = run_isolated(cell, "diverge", "cpu", quiet=True)
    assert record.failure and record.failure.kind == "crashed"
    _child(tmp_path, monkeypatch, f"echo 'CUDA error: Out of memory' >> {log}; kill -ABRT $$")
    record = run_isolated(cell, "diverge", "cpu", quiet=True)
    assert record.failure and record.failure.kind == "out_of_memory"


def test_a_process_that_a_library_ends_is_quoted_with_its_last_exception(
    cell: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GPTQModel's worker threads print a traceback and call os._exit(1)."""
    log = log_path(cell, "quantize")
    log.parent.mkdir(parents=True)
    log.write_text("Traceback (most recent call last):\nOSError: of an earlier run\n")
    threw = (
        "import os, traceback\n"
        "try:\n    raise KeyError('q_zeros')\n"
        "except KeyError:\n    traceback.print_exc()\n"
        "print('see the log', flush=True)\nos._exit(1)\n"
    )
    (tmp_path / "threw.py").write_text(threw)
    _child(tmp_path, monkeypatch, f"exec {sys.executable} {tmp_path}/threw.py >> {log} 2>&1")
    record = run_isolated(cell, "quantize", "cpu", quiet=True)
    assert record.failure and record.failure.reason == (
        "the process ended with code 1 after KeyError: 'q_zeros' (traceback in logs/m/gptq-4/quantize.log)"
    )
    _child(tmp_path, monkeypatch, "exit 1")
    record = run_isolated(cell, "quantize", "cpu", quiet=True)
    assert record.failure and record.failure.reason == (
        "the process ended with code 1 (its output is in logs/m/gptq-4/quantize.log)"
    )


def test_an_earlier_record_does_not_stand_for_a_death(
    cell: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = record_path(cell.root, "m", "gptq-4", "measure")
    path.parent.mkdir(parents=True)
    path.write_text(MeasureRecord(model="m", variant="gptq-4").model_dump_json())
    _child(tmp_path, monkeypatch, "exit 0")
    assert run_isolated(cell, "measure", "cpu", quiet=True).failure
    again = read_record(path, STAGES["measure"].record)
    assert again and again.failure and again.failure.kind == "crashed"


def test_a_recipe_that_is_changed_meanwhile_leaves_a_stale_record_and_says_so(
    cell: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC would note the new settings beside a record of the old ones."""
    recipe = tmp_path / "recipes" / "m.yaml"
    _child(tmp_path, monkeypatch, f"echo 'measure: {{repeats: 7}}' >> {recipe}; exit 3")
    said = (
        r"recipes/m.yaml was changed while measure of m--gptq-4 ran \(one of engine, measure\).*run it again"
    )
    with pytest.raises(QuantlabError, match=said):
        run_isolated(cell, "measure", "cpu", quiet=True)
    record = read_record(record_path(cell.root, "m", "gptq-4", "measure"), MeasureRecord)
    assert record is not None and is_stale(record, read_recipe(recipe)) and not is_stale(record, cell.recipe)
    _child(tmp_path, monkeypatch, f"echo 'evaluation: {{windows: 3, length: 64}}' >> {recipe}; exit 3")
    assert run_isolated(
        Cell(tmp_path, "m", "gptq-4"), "diverge", "cpu", quiet=True
    ).failure  # no setting of its own


def test_a_mistake_of_the_users_is_no_record(cell: Cell) -> None:
    with pytest.raises(QuantlabError, match="is not a checkpoint: it has no"):
        run_isolated(cell, "measure", "cpu", quiet=True)
    assert not record_path(cell.root, "m", "gptq-4", "measure").exists()


def test_only_memory_errors_are_expected() -> None:
    assert as_failure(MemoryError()) and as_failure(
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")
    )
    assert as_failure(RuntimeError("shapes do not match")) is None


def test_a_death_of_the_measuring_process_tells_what_was_last_seen(
    cell: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = Sample(
        step="decode b8 c4096", seconds=9.0, tree_rss_bytes=5_000_000_000, tree_pss_bytes=4_500_000_000
    )
    seen = SampledMemory(
        asked_interval_seconds=0.01,
        interval_seconds=0.01,
        pss_interval_seconds=0.02,
        samples=900,
        peak=last,
        steps=(last,),
        last=last,
    )
    (tmp_path / "seen.json").write_text(seen.model_dump_json() + "\n")
    file = sample_file(cell.root, "m", "gptq-4")
    _child(tmp_path, monkeypatch, f"mkdir -p {file.parent}; cp {tmp_path}/seen.json {file}; kill -KILL $$")
    record = run_isolated(cell, "measure", "cpu", quiet=True)
    assert (
        isinstance(record, MeasureRecord) and record.sampled == seen and record.died_in == "decode b8 c4096"
    )
    assert record.failure and record.failure.kind == "killed"
    assert record.failure.reason.endswith("it last held 4.50 GB of memory, in step `decode b8 c4096`")
    _child(tmp_path, monkeypatch, "kill -KILL $$")
    again = run_isolated(cell, "measure", "cpu", quiet=True)
    assert (
        isinstance(again, MeasureRecord) and again.sampled is None
    )  # what an earlier run saw does not stand for this one


def test_a_record_that_a_full_disk_does_not_take_is_no_crash(
    cell: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _child(tmp_path, monkeypatch, "exit 74")
    with pytest.raises(
        CellFailure, match="the record of measure could not be written; the next run tries it again"
    ):
        run_isolated(cell, "measure", "cpu", quiet=True)
    assert not record_path(cell.root, "m", "gptq-4", "measure").exists()


def test_the_childs_temporary_files_lie_in_the_workspace(
    cell: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _child(tmp_path, monkeypatch, f'echo "$QUANTLAB_TMP" > {tmp_path}/said; touch "$QUANTLAB_TMP/left"')
    run_isolated(cell, "diverge", "cpu", quiet=True)
    folder = Path((tmp_path / "said").read_text().strip())
    assert folder.parent == cell.root / ".quantlab" / "tmp" and not folder.exists()


@pytest.mark.parametrize(
    ("stage", "engine", "before", "seen", "device"),
    [
        ("diverge", "vllm", "", "1", "cuda:0"),
        ("evaluate", "vllm", "4,5", "5", "cuda:0"),
        ("diverge", "transformers", "4,5", "4,5", "cuda:1"),
        ("quantize", "vllm", "4,5", "5", "cuda:0"),
    ],
)
def test_gpu_row_10_the_stages_process_sees_the_engines_gpus_before_anything_opens_cuda(
    stage: StageName,
    engine: str,
    before: str,
    seen: str,
    device: str,
    cell: Cell,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """CUDA reads CUDA_VISIBLE_DEVICES once, and vLLM takes the first GPUs that it sees."""
    path = cell.root / "recipes" / "m.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"engine": engine}))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", before)
    if not before:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    said = tmp_path / "said"
    _child(tmp_path, monkeypatch, f'echo "$CUDA_VISIBLE_DEVICES" > {said}; echo "$4" >> {said}')
    run_isolated(cell, stage, "cuda:1", quiet=True)
    visible, job = said.read_text().splitlines()
    assert visible == seen and json.loads(job)["device"] == device
