"""evaluate: lm-eval's tasks on one checkpoint, the same items for every variant, per-sample results kept."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from quantlab import engines, tasksets
from quantlab.cell import Cell, require_memory
from quantlab.device import Device
from quantlab.items import Items, key_of
from quantlab.progress import Progress
from quantlab.recipe import TasksSpec
from quantlab.records import Estimate, TaskRecord, TaskResult
from quantlab.stages.diverge import runs_dense
from quantlab.versions import installed

SAMPLE_COLUMNS = ("task", "doc_id", "doc_hash", "metric", "value", "target", "response")
_COMPARED = ("acc_norm", "exact_match", "acc")
"""The metric that a comparison uses, the first of these that the task has; else the task's first."""


def run(cell: Cell, device: Device, progress: Progress) -> TaskRecord:
    """Evaluate the cell's checkpoint and write samples.parquet. Raises CellFailure where it cannot run here."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    spec, checkpoint = cell.recipe.tasks, cell.checkpoint()
    require_memory(device, checkpoint.disk_bytes, "the checkpoint")
    began = time.monotonic()
    name = engines.engine_for(checkpoint.manifest.format)
    dense = runs_dense(checkpoint, device)
    engine = engines.load(name).open_checkpoint(checkpoint, device.device, dense)
    versions = installed(("lm-eval", *engines.load(name).REQUIRES))
    lm = engine.language_model(spec.batch_size)
    results: dict[str, TaskResult] = {}
    rows: list[dict[str, Any]] = []
    for task in load_tasks(spec, cell.root / ".quantlab" / "tasks" / cell.model):
        settings = key_of(versions, name, engine.dtype, dense, device.name, spec.chat_template, spec.batch_size)
        items = Items(cell.root, checkpoint.sha256, task.task_name)
        results[task.task_name], found = _evaluate(task, lm, spec, cell, items, settings, progress)
        rows += found
    engine.close()
    write_samples(cell, rows)
    return TaskRecord(
        model=cell.model,
        variant=cell.variant.slug,
        checkpoint_sha256=checkpoint.sha256,
        engine=name,
        device=device.name,
        versions=versions,
        tasks=results,
        seed=cell.recipe.seed,
        chat_template=spec.chat_template,
        dense=dense,
        seconds=time.monotonic() - began,
    )


def load_tasks(spec: TasksSpec, folder: Path) -> list[Any]:
    """lm-eval's task objects. Raises QuantlabError for an unknown task."""
    from lm_eval.tasks import TaskManager

    tasksets.check_tasks(spec.set, spec.names)
    specs = tasksets.load(spec.set).specs(spec.names, folder)
    manager = TaskManager(include_defaults=any(not s.endswith(".yaml") for s in specs))
    return list(manager.load(specs)["tasks"].values())


def choose_items(available: int, wanted: int | None, seed: int) -> list[int]:
    """Sorted indices of a random subset: the first `wanted` of one fixed order, so a larger subset contains a smaller one."""
    import numpy as np

    order = np.random.default_rng(seed).permutation(available)
    return sorted(int(i) for i in order[: wanted if wanted is not None else available])


def _evaluate(
    task: Any, lm: Any, spec: TasksSpec, cell: Cell, items: Items, settings: str, progress: Progress
) -> tuple[TaskResult, list[dict[str, Any]]]:
    from lm_eval.evaluator import simple_evaluate

    from quantlab.resuming import ResumingLM

    name, seed = task.task_name, cell.recipe.seed
    chosen = choose_items(len(task.eval_docs), spec.items, seed)
    with progress.step(f"{cell.variant.slug}: {name}, {len(chosen)} items") as step:
        found = simple_evaluate(
            ResumingLM(lm, items, settings, step),
            tasks=[task],
            samples={name: chosen},
            num_fewshot=spec.fewshot,
            apply_chat_template=spec.chat_template,
            bootstrap_iters=0,
            log_samples=True,
            random_seed=seed,
            numpy_random_seed=seed,
            torch_random_seed=seed,
            fewshot_random_seed=seed,
        )
    samples = found["samples"][name]
    metric = next((m for m in _COMPARED if m in samples[0]), samples[0]["metrics"][0])
    values = [float(s[metric]) for s in samples]
    metrics = {
        k.removesuffix(",none"): float(v) for k, v in found["results"][name].items() if isinstance(v, int | float) and "_stderr" not in k
    }
    result = TaskResult(
        metric=metric,
        score=_score(values),
        metrics=metrics,
        task_version=str(found["versions"].get(name, "")),
        fewshot=spec.fewshot,
        chance=_chance(task, samples),
    )
    return result, [_row(name, s, m) for s in samples for m in s["metrics"] if isinstance(s[m], int | float)]


def _score(values: list[float]) -> Estimate:
    """Mean and its standard error, the items independent."""
    import numpy as np

    array = np.asarray(values)
    error = float(array.std(ddof=1) / np.sqrt(len(array))) if len(array) > 1 else None
    return Estimate(value=float(array.mean()), standard_error=error, n=len(array))


def _chance(task: Any, samples: list[dict[str, Any]]) -> float | None:
    """Mean of 1 / number of choices, None where a task is no multiple choice."""
    if task.get_config("output_type") != "multiple_choice":
        return None
    return float(sum(1 / len(s["arguments"]) for s in samples) / len(samples))


def _row(task: str, sample: dict[str, Any], metric: str) -> dict[str, Any]:
    return {
        "task": task,
        "doc_id": int(sample["doc_id"]),
        "doc_hash": str(sample["doc_hash"]),
        "metric": metric,
        "value": float(sample[metric]),
        "target": str(sample["target"]),
        "response": json.dumps(sample["filtered_resps"], default=str),
    }


def write_samples(cell: Cell, rows: list[dict[str, Any]]) -> None:
    """Write samples.parquet whole; with no rows it still has its columns."""
    import pandas as pd

    frame = pd.DataFrame(rows, columns=list(SAMPLE_COLUMNS)).astype(
        {"task": "str", "doc_id": "int64", "doc_hash": "str", "metric": "str", "value": "float64", "target": "str", "response": "str"}
    )
    cell.data_folder.mkdir(parents=True, exist_ok=True)
    target = cell.data_folder / "samples.parquet"
    partial = target.with_name(".samples.parquet.partial")
    frame.to_parquet(partial, index=False)
    partial.replace(target)
