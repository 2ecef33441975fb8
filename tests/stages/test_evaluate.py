"""Per-item results are lm-eval's own, and an item that was answered is never asked again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from quantlab.engines.transformers import TransformersEngine
from quantlab.evaluation.tasks import choose_items, load_asked
from quantlab.hardware.device import find
from quantlab.progress import Progress
from quantlab.stages import evaluate, quantize
from quantlab.workspace.cell import Cell

pytestmark = pytest.mark.slow
QUIET = Progress(quiet=True)


@pytest.fixture(scope="module")
def cell(workspace: Path) -> Cell:
    cell = Cell(workspace, "small", "baseline-16")
    quantize.run(cell, find("cpu"), QUIET)
    return cell


def _command_line(cell: Cell, folder: Path, dtype: str) -> pd.DataFrame:
    """The same items through the `lm_eval` command; one row per item and metric."""
    spec = cell.recipe.tasks
    samples = {
        k: v
        for task in load_asked(spec, folder / "tasks")
        for k, v in task.choose(spec.items, cell.recipe.seed).items()
    }
    command = [str(Path(sys.executable).parent / "lm_eval"), "--model", "hf", "--tasks", ",".join(samples)]
    command += [
        "--model_args",
        f"pretrained={cell.checkpoint().weights},dtype={dtype}",
        "--include_path",
        str(folder / "tasks"),
    ]
    command += ["--samples", json.dumps(samples), "--log_samples", "--output_path", str(folder / "out")]
    command += ["--batch_size", "4", "--device", "cpu"]
    done = subprocess.run(
        command, env=os.environ | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rows: list[dict[str, Any]] = []
    for task in samples:
        (path,) = (folder / "out").rglob(f"samples_{task}_*.jsonl")
        for sample in map(json.loads, path.read_text().splitlines()):
            common = {"task": task, "doc_id": sample["doc_id"], "doc_hash": sample["doc_hash"]}
            rows += [
                common | {"metric": m, "value": float(sample[m]), "response": sample["filtered_resps"]}
                for m in sample["metrics"]
            ]
    return pd.DataFrame(rows)


def test_items_are_those_of_the_lm_eval_command(cell: Cell, tmp_path: Path) -> None:
    record = evaluate.run(cell, find("cpu"), QUIET)
    ours = pd.read_parquet(cell.data_folder / "samples.parquet")
    assert record.scored_in == "float32"
    theirs = _command_line(cell, tmp_path, record.scored_in)
    both = ours.merge(
        theirs, on=["task", "doc_id", "metric"], suffixes=("", "_theirs"), validate="one_to_one"
    )
    assert len(both) == len(ours) == len(theirs) > 24  # 12 items of each task, one metric or two
    assert (both["doc_hash"] == both["doc_hash_theirs"]).all() and (
        both["value"] == both["value_theirs"]
    ).all()
    for ours_json, theirs_raw in zip(both["response"], both["response_theirs"], strict=True):
        for (likelihood, greedy), (likelihood_theirs, greedy_theirs) in zip(
            json.loads(ours_json), theirs_raw, strict=True
        ):
            assert float(likelihood) == pytest.approx(float(likelihood_theirs), abs=1e-3)  # other batches
            assert str(greedy) == str(greedy_theirs)


def test_what_was_answered_is_not_asked_again(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    first = evaluate.run(cell, find("cpu"), QUIET)
    samples = (cell.data_folder / "samples.parquet").read_bytes()
    asked: list[int] = []
    original = TransformersEngine.language_model

    def counting(engine: TransformersEngine, batch_size: int) -> Any:
        lm = original(engine, batch_size)
        ask = lm.loglikelihood
        lm.loglikelihood = lambda requests, **options: asked.append(len(requests)) or ask(requests, **options)
        return lm

    monkeypatch.setattr(TransformersEngine, "language_model", counting)
    again = evaluate.run(cell, find("cpu"), QUIET)
    assert (
        not asked
        and again.tasks == first.tasks
        and (cell.data_folder / "samples.parquet").read_bytes() == samples
    )


def test_more_items_contain_the_fewer() -> None:
    few, many = choose_items(500, 10, 7), choose_items(500, 50, 7)
    assert len(few) == 10 and set(few) < set(many) and few != choose_items(500, 10, 8)
    assert choose_items(5, None, 7) == [0, 1, 2, 3, 4]
