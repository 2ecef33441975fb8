"""evaluate: lm-eval's tasks on one checkpoint, the same items for every variant, per-sample results kept."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from quantlab import engines
from quantlab.analysis.stopping import Stop
from quantlab.analysis.verdict import Z05
from quantlab.environments.versions import installed
from quantlab.errors import CellFailure
from quantlab.evaluation.answers import Answers, answers_of, result_of
from quantlab.evaluation.looks import evaluate_in_looks, read_baseline
from quantlab.evaluation.samples import rows_of, write_samples
from quantlab.evaluation.tasks import load_asked, with_full_run_examples
from quantlab.hardware.device import Device
from quantlab.hardware.target import require_memory
from quantlab.names import BASELINE
from quantlab.progress import Progress
from quantlab.records import Look, TaskRecord
from quantlab.stages.probe import STAGE_VERSIONS
from quantlab.workspace.cell import Cell
from quantlab.workspace.checkpoint import Checkpoint
from quantlab.workspace.items import Items, key_of


def run(cell: Cell, device: Device, progress: Progress, until_decided: bool = False) -> TaskRecord:
    """Evaluate the cell's checkpoint and write samples.parquet. Raises CellFailure where it cannot run here.

    `until_decided`, here or in the recipe, stops each task when its verdict against the baseline is settled; the
    baseline itself runs whole.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    spec, checkpoint = cell.recipe.tasks, cell.checkpoint()
    early = (until_decided or spec.until_decided) and cell.variant.slug != BASELINE
    baseline = read_baseline(cell) if early else None
    require_memory(device, checkpoint.disk_bytes, "the checkpoint")
    began = time.monotonic()
    name = engines.engine_or_usual(checkpoint.manifest.format, cell.recipe.engine)
    dense = engines.runs_dense(checkpoint, device)
    engine = engines.load(name).open_checkpoint(checkpoint, device.device, dense)
    versions = installed(("lm-eval", *engines.load(name).requires))
    lm = engine.language_model(spec.batch_size)
    settings = key_of(STAGE_VERSIONS["evaluate"], versions, name, engine.dtype, dense, device.name, spec.chat_template, spec.batch_size)
    ended: dict[str, Stop | None] = {}
    if baseline:
        found, ended = evaluate_in_looks(
            lambda sizes: _evaluate(lm, cell, checkpoint.sha256, settings, progress, sizes), baseline, cell.recipe.comparison.margin_points
        )
    else:
        found = _evaluate(lm, cell, checkpoint.sha256, settings, progress, {})
    results = {task: result_of(task, found, _look(ended[task], found, task) if baseline else None) for task in found.samples}
    engine.close()
    write_samples(
        cell.data_folder / "samples.parquet",
        [row for task, samples in found.samples.items() for s in samples for row in rows_of(task, s, found.configs[task])],
    )
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
        notes=(
            *found.notes,
            *(f"{task}: {r.look.verdict}, {r.look.reason}." for task, r in results.items() if r.look),
            *_without_cache(checkpoint, name),
        ),
    )


def _without_cache(checkpoint: Checkpoint, engine: str) -> tuple[str, ...]:
    """lm-eval scores transformers' answers in one forward pass each, which reads nothing from a cache."""
    cache = checkpoint.manifest.settings.get("cache")
    scored_without = cache and engines.load(engine).scores_without_cache
    return (f"Scored without the {cache} cache: see the divergence for its loss.",) if scored_without else ()


def _evaluate(lm: Any, cell: Cell, checkpoint: str, settings: str, progress: Progress, sizes: Mapping[str, int]) -> Answers:
    """All tasks in one call of lm-eval; `sizes` says how many items of a task, else the recipe does."""
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    from quantlab.evaluation.resuming import ResumingLM

    spec, seed = cell.recipe.tasks, cell.recipe.seed
    every = load_asked(spec, cell.root / ".quantlab" / "tasks" / cell.model)
    asked = [task for task in every if task.available]
    empty = [task.name for task in every if not task.available]
    if not asked:
        raise CellFailure("not_measured", f"no item in {', '.join(empty)}")
    chosen = {leaf: own for task in asked for leaf, own in task.choose(sizes.get(task.name, spec.items), seed).items()}
    leaves = [with_full_run_examples(leaf, chosen[leaf.task_name]) for task in asked for leaf in task.leaves if leaf.task_name in chosen]
    items = {leaf: Items(cell.root, checkpoint, leaf) for leaf in chosen}
    what = ", ".join(f"{task.name} ({sum(len(chosen.get(leaf.task_name, ())) for leaf in task.leaves)} items)" for task in asked)
    with progress.step(f"{cell.variant.slug}: {what}") as step:
        resuming = ResumingLM(lm, items, chosen, settings, step)
        found: dict[str, Any] = simple_evaluate(
            resuming,
            tasks=leaves,
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
        f"{count} items of {task} are longer than the model's context and were cut from the left." for task, count in resuming.cut.items()
    ]
    notes = (*(f"{name} has no items." for name in empty), *cut)
    return answers_of(found, asked, spec.filters, lambda text: len(lm.tok_encode(text, add_special_tokens=False)), notes)


def _look(stop: Stop | None, found: Answers, task: str) -> Look:
    """Where a task ended; `stop` is None where it cannot end early and was asked whole."""
    asked, available = len(found.samples[task]), found.available[task]
    if stop is None:
        reason = "asked whole: its items share texts, or its metric is not right or wrong"
        return Look(number=1, of=1, items=asked, available=available, quantile=Z05, verdict="not judged early", reason=reason)
    reason = stop.reason if stop.items == stop.total else f"{stop.reason} of {stop.total:,}"
    return Look(
        number=stop.look,
        of=stop.looks,
        items=stop.items,
        available=stop.total,
        quantile=stop.quantile,
        verdict=stop.verdict,
        reason=reason,
    )
