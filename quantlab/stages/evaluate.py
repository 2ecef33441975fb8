"""evaluate: lm-eval's tasks on one checkpoint, the same items for every variant, per-sample results kept."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantlab import engines, tasksets
from quantlab.cell import Cell, require_memory
from quantlab.checkpoint import Checkpoint
from quantlab.device import Device
from quantlab.errors import CellFailure
from quantlab.items import Items, key_of
from quantlab.progress import Progress
from quantlab.recipe import TasksSpec
from quantlab.records import Estimate, TaskRecord, TaskResult
from quantlab.stages._until_decided import BASELINE, evaluate_in_looks, read_baseline
from quantlab.stages.diverge import runs_dense
from quantlab.versions import installed

SAMPLE_COLUMNS = ("task", "doc_id", "doc_hash", "metric", "value", "target", "response", "answer")
_COMPARED = ("acc_norm", "exact_match", "acc")
"""The metric that a comparison uses, the first of these that the task has; else the task's first."""


def run(cell: Cell, device: Device, progress: Progress, until_decided: bool = False) -> TaskRecord:
    """Evaluate the cell's checkpoint and write samples.parquet. Raises CellFailure where it cannot run here.

    `until_decided` stops each task when its verdict against the baseline is settled; the baseline itself runs whole.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    spec, checkpoint = cell.recipe.tasks, cell.checkpoint()
    baseline = read_baseline(cell) if until_decided and cell.variant.slug != BASELINE else None
    require_memory(device, checkpoint.disk_bytes, "the checkpoint")
    began = time.monotonic()
    name = engines.engine_for(checkpoint.manifest.format)
    dense = runs_dense(checkpoint, device)
    engine = engines.load(name).open_checkpoint(checkpoint, device.device, dense)
    versions = installed(("lm-eval", *engines.load(name).REQUIRES))
    lm = engine.language_model(spec.batch_size)
    settings = key_of(versions, name, engine.dtype, dense, device.name, spec.chat_template, spec.batch_size)
    if baseline:
        found, ended = evaluate_in_looks(
            lambda sizes: _evaluate(lm, cell, checkpoint.sha256, settings, progress, sizes),
            baseline,
            _metric,
            cell.recipe.comparison.margin_points,
        )
        found["quantlab_notes"] += tuple(
            f"{task}: {stop.verdict}, {stop.reason} of {baseline.total(task):,}." for task, stop in ended.items() if stop
        )
    else:
        found = _evaluate(lm, cell, checkpoint.sha256, settings, progress, {})
    results = {task: _result(task, found, spec) for task in found["samples"]}
    rows = [
        _row(task, s, m, found["configs"][task])
        for task, samples in found["samples"].items()
        for s in samples
        for m in s["metrics"]
        if _is_number(s[m])
    ]
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
        notes=found["quantlab_notes"] + _without_cache(checkpoint, name),
    )


def _without_cache(checkpoint: Checkpoint, engine: str) -> tuple[str, ...]:
    """lm-eval scores transformers' answers in one forward pass each, which reads nothing from a cache."""
    cache = checkpoint.manifest.settings.get("cache")
    return (f"Scored without the {cache} cache: see the divergence for its loss.",) if cache and engine == "transformers" else ()


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


def _evaluate(lm: Any, cell: Cell, checkpoint: str, settings: str, progress: Progress, sizes: Mapping[str, int]) -> dict[str, Any]:
    """lm-eval's own results, all tasks in one call; `sizes` says how many items of a task, else the recipe does."""
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    from quantlab.resuming import ResumingLM

    spec, seed = cell.recipe.tasks, cell.recipe.seed
    tasks = load_tasks(spec, cell.root / ".quantlab" / "tasks" / cell.model)
    empty = [task.task_name for task in tasks if not len(task.eval_docs)]
    tasks = [task for task in tasks if task.task_name not in empty]
    if not tasks:
        raise CellFailure("not_measured", f"no item in {', '.join(empty)}")
    chosen = {task.task_name: choose_items(len(task.eval_docs), sizes.get(task.task_name, spec.items), seed) for task in tasks}
    items = {name: Items(cell.root, checkpoint, name) for name in chosen}
    what = ", ".join(f"{name} ({len(indices)} items)" for name, indices in chosen.items())
    with progress.step(f"{cell.variant.slug}: {what}") as step:
        resuming = ResumingLM(lm, items, settings, step)
        found: dict[str, Any] = simple_evaluate(
            resuming,
            tasks=tasks,
            samples=chosen,
            num_fewshot=spec.fewshot,
            apply_chat_template=spec.chat_template,
            bootstrap_iters=0,
            log_samples=True,
            task_manager=TaskManager(include_defaults=False),  # the tasks are loaded; with defaults it reads all of lm-eval
            random_seed=seed,
            numpy_random_seed=seed,
            torch_random_seed=seed,
            fewshot_random_seed=seed,
        )
    cut = [
        f"{count} requests of {task} are longer than the model's context and were cut from the left."
        for task, count in resuming.cut.items()
    ]
    found["quantlab_notes"] = (*(f"{task} has no items." for task in empty), *cut)
    return found


def _result(task: str, found: dict[str, Any], spec: TasksSpec) -> TaskResult:
    samples = found["samples"][task]
    metric = _metric(samples[0])
    metrics = {k.removesuffix(",none"): float(v) for k, v in found["results"][task].items() if _is_number(v) and "_stderr" not in k}
    multiple_choice = found["configs"][task].get("output_type") == "multiple_choice"
    return TaskResult(
        metric=metric,
        score=_score([float(s[metric]) for s in samples]),
        metrics=metrics,
        task_version=str(found["versions"].get(task, "")),
        fewshot=spec.fewshot,
        chance=sum(1 / len(s["arguments"]) for s in samples) / len(samples) if multiple_choice else None,
    )


def _metric(sample: dict[str, Any]) -> str:
    """The metric that a comparison uses."""
    return next((m for m in _COMPARED if m in sample), str(sample["metrics"][0]))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _score(values: list[float]) -> Estimate:
    """Mean and its standard error, the items independent."""
    import numpy as np

    array = np.asarray(values)
    error = float(array.std(ddof=1) / np.sqrt(len(array))) if len(array) > 1 else None
    return Estimate(value=float(array.mean()), standard_error=error, n=len(array))


def answer_of(sample: dict[str, Any], metric: str, config: dict[str, Any]) -> str:
    """What the model answered: the index of the choice that the metric takes, else the filtered response.

    `acc_norm` divides a choice's log-likelihood by its length in characters, as lm-eval does.
    """
    import numpy as np

    responses = sample["filtered_resps"]
    if config.get("output_type") != "multiple_choice":
        return json.dumps(responses[0] if len(responses) == 1 else responses, default=str)
    delimiter = str(config.get("target_delimiter", " "))
    lengths = [max(1, len(str(arguments[1]).removeprefix(delimiter))) for arguments in sample["arguments"]]
    likelihoods = np.array([float(response[0]) for response in responses[: len(lengths)]])
    return str(int(np.argmax(likelihoods / np.array(lengths) if metric == "acc_norm" else likelihoods)))


def _row(task: str, sample: dict[str, Any], metric: str, config: dict[str, Any]) -> dict[str, Any]:
    return {
        "task": task,
        "doc_id": int(sample["doc_id"]),
        "doc_hash": str(sample["doc_hash"]),
        "metric": metric,
        "value": float(sample[metric]),
        "target": str(sample["target"]),
        "response": json.dumps(sample["filtered_resps"], default=str),
        "answer": answer_of(sample, metric, config),
    }


def write_samples(cell: Cell, rows: list[dict[str, Any]]) -> None:
    """Write samples.parquet whole; with no rows it still has its columns."""
    import pandas as pd

    frame = pd.DataFrame(rows, columns=list(SAMPLE_COLUMNS)).astype(
        {
            "task": "str",
            "doc_id": "int64",
            "doc_hash": "str",
            "metric": "str",
            "value": "float64",
            "target": "str",
            "response": "str",
            "answer": "str",
        }
    )
    cell.data_folder.mkdir(parents=True, exist_ok=True)
    target = cell.data_folder / "samples.parquet"
    partial = target.with_name(".samples.parquet.partial")
    frame.to_parquet(partial, index=False)
    partial.replace(target)
