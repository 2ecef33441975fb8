"""Run lm-eval's tasks on one checkpoint, with the same items for every variant, and keep per-sample
results."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from quantlab import engines
from quantlab.analysis.stopping import Stop
from quantlab.analysis.verdict import Z05
from quantlab.environments.versions import installed
from quantlab.errors import CellFailure
from quantlab.evaluation.answers import Answers, answers_of, result_of, together
from quantlab.evaluation.bad_items import failure_of, is_of_the_cell
from quantlab.evaluation.looks import Baseline, evaluate_in_looks, read_baseline
from quantlab.evaluation.samples import rows_of, write_samples
from quantlab.evaluation.tasks import AskedTask, load_asked, with_full_run_examples
from quantlab.hardware.device import Device
from quantlab.hardware.target import fits_in_float32, require_memory
from quantlab.names import BASELINE
from quantlab.progress import Progress
from quantlab.records import STAGES, Failure, Look, TaskRecord, TaskResult
from quantlab.workspace.cell import Cell
from quantlab.workspace.checkpoint import Checkpoint
from quantlab.workspace.items import Items, key_of

_TOKENS_OF_AN_ITEM = 512
"""Of a long question; logits are one row of the vocabulary for each, and again as log-probabilities."""


_SEEDS = ("random_seed", "numpy_random_seed", "torch_random_seed", "fewshot_random_seed")


def run(cell: Cell, device: Device, progress: Progress, until_decided: bool = False) -> TaskRecord:
    """Evaluate the cell's checkpoint and write samples.parquet. Raises CellFailure where it cannot run here.

    `until_decided`, here or in the recipe, stops each task when its verdict against the baseline is settled;
    the baseline itself runs whole."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    spec, checkpoint = cell.recipe.tasks, cell.checkpoint()
    cell.prepared.require_unchanged(weights=False)  # its tokenizer reads every question
    early = (until_decided or spec.until_decided) and cell.variant.slug != BASELINE
    baseline = read_baseline(cell) if early else None
    require_memory(device, checkpoint.disk_bytes, "the checkpoint")
    began = time.monotonic()
    name = engines.engine_or_usual(checkpoint.manifest.format, cell.recipe.engine)
    dense = engines.runs_dense(checkpoint, device)
    engine = engines.load(name).open_checkpoint(
        *(checkpoint, device.device, dense, _in_float32(cell, device)),
        demand=engines.Demand(scored_tokens=_TOKENS_OF_AN_ITEM, sequences=spec.batch_size),
    )
    versions = installed(("lm-eval",)) | engines.load(name).versions(device.device)
    lm = engine.language_model(spec.batch_size)
    settings = key_of(
        *(STAGES["evaluate"].version, versions, name, engine.scored_in, dense, device.name),
        *(spec.chat_template, spec.batch_size),
    )
    answers, results = _ask_all(
        lambda sizes: _evaluate(lm, cell, checkpoint.sha256, settings, progress, sizes),
        baseline,
        cell.recipe.comparison.margin_points,
    )
    engine.close()
    _write_samples(cell, answers)
    return TaskRecord(
        model=cell.model,
        variant=cell.variant.slug,
        checkpoint_sha256=checkpoint.sha256,
        engine=name,
        device=device.name,
        versions=versions,
        tasks=results,
        failed=answers.failed,
        scored_in=engine.scored_in,
        seed=cell.recipe.seed,
        chat_template=spec.chat_template,
        dense=dense,
        seconds=time.monotonic() - began,
        notes=(*_notes(answers, results), *_without_cache(checkpoint, name)),
    )


def _ask_all(
    evaluate: Callable[[Mapping[str, int]], Answers], baseline: Baseline | None, margin_points: float
) -> tuple[Answers, dict[str, TaskResult]]:
    """The answers to all tasks and each task's result; with a baseline, each task stops when it is decided.

    Raises CellFailure where every task failed.
    """
    ended: dict[str, Stop | None] = {}
    if baseline:
        answers, ended = evaluate_in_looks(evaluate, baseline, margin_points)
    else:
        answers = evaluate({})
    if not answers.samples:
        raise _nothing(answers.failed)
    return answers, {
        task: result_of(task, answers, _look(ended[task], answers, task) if baseline else None)
        for task in answers.samples
    }


def _write_samples(cell: Cell, answers: Answers) -> None:
    rows = [
        row
        for task, samples in answers.samples.items()
        for sample in samples
        for row in rows_of(task, sample, answers.configs[task])
    ]
    write_samples(cell.data_folder / "samples.parquet", rows)


def _notes(answers: Answers, results: Mapping[str, TaskResult]) -> tuple[str, ...]:
    """What a reader of the scores must know."""
    return (
        *answers.notes,
        *(note for task, result in results.items() for note in _doubts(task, result)),
        *(f"{task}: {r.look.verdict}, {r.look.reason}." for task, r in results.items() if r.look),
    )


def _without_cache(checkpoint: Checkpoint, engine: str) -> tuple[str, ...]:
    """lm-eval scores transformers' answers in one forward pass each, which reads nothing from a cache."""
    cache = checkpoint.manifest.settings.get("cache")
    scored_without = cache and engines.load(engine).scores_without_cache
    return (f"Scored without the {cache} cache: see the divergence for its loss.",) if scored_without else ()


def _in_float32(cell: Cell, device: Device) -> bool:
    """Whether the model fits in float32, with the logits of a batch: rounding in 16 bits makes ties and noise
    in every drop."""
    source = cell.prepared.source()
    logits = 2 * 4 * source.vocabulary * cell.recipe.tasks.batch_size * _TOKENS_OF_AN_ITEM
    return fits_in_float32(source.parameters, device, logits)


def _doubts(task: str, result: TaskResult) -> Iterator[str]:
    """What a reader of a score must know of how it came about."""
    if result.ties:
        yield (
            f"{result.ties:,} of {result.score.n:,} items of {task} have more than one best choice: the first"
            " counts, as in lm-eval."
        )
    if result.truncated_share:
        cut = round(result.truncated_share * result.score.n)
        yield (
            f"{cut:,} of {result.score.n:,} answers of {task} were cut at the limit of tokens, before a stop"
            " string."
        )


def _nothing(failed: Mapping[str, Failure]) -> CellFailure:
    """The failure of a cell whose every task failed."""
    first = next(iter(failed.values()))
    return CellFailure(first.kind, "; ".join(dict.fromkeys(failure.reason for failure in failed.values())))


def _evaluate(
    lm: Any, cell: Cell, checkpoint: str, settings: str, progress: Progress, sizes: Mapping[str, int]
) -> Answers:
    """All tasks, one after the other, so that one that fails costs no other its answers; `sizes` says how
    many items of a task, else the recipe does."""
    every = load_asked(cell.recipe.tasks, cell.root / ".quantlab" / "tasks" / cell.model)
    failed = {task.name: task.failure for task in every if task.failure}
    empty = [task.name for task in every if not task.available and not task.failure]
    parts: list[Answers] = []
    for task in every:
        if not task.available:
            continue
        try:
            parts.append(_evaluate_task(lm, cell, checkpoint, settings, progress, task, sizes.get(task.name)))
        except Exception as error:
            if is_of_the_cell(error):
                raise
            failed[task.name] = Failure.of(failure_of(error, task.name))
    if not parts and not failed:
        raise CellFailure("not_measured", f"no item in {', '.join(empty)}")
    return together(parts, failed, [f"{name} has no items." for name in empty])


def _evaluate_task(
    lm: Any,
    cell: Cell,
    checkpoint: str,
    settings: str,
    progress: Progress,
    task: AskedTask,
    wanted: int | None,
) -> Answers:
    """One task in one call of lm-eval, on `wanted` items, else on the recipe's."""
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    from quantlab.evaluation.resuming import ResumingLM

    spec, seed = cell.recipe.tasks, cell.recipe.seed
    chosen = task.choose(wanted or spec.items, seed)
    asked = [leaf for leaf in task.leaves if leaf.task_name in chosen]
    items = {leaf: Items(cell.root, checkpoint, leaf) for leaf in chosen}
    with progress.step(f"{cell.variant.slug}: {task.name} ({sum(map(len, chosen.values()))} items)") as step:
        resuming = ResumingLM(lm, items, chosen, settings, step)
        results: dict[str, Any] = simple_evaluate(
            resuming,
            tasks=[with_full_run_examples(leaf, chosen[leaf.task_name]) for leaf in asked],
            samples=chosen,
            num_fewshot=spec.fewshot,
            apply_chat_template=spec.chat_template,
            bootstrap_iters=0,
            log_samples=True,
            # the tasks are loaded; with defaults it reads all of lm-eval
            task_manager=TaskManager(include_defaults=False),
            confirm_run_unsafe_code=task.runs_code,
            **dict.fromkeys(_SEEDS, seed),
        )
    cut = (
        f"{count} items of {leaf} are longer than the model's context and were cut from the left."
        for leaf, count in resuming.cut.items()
    )
    return answers_of(
        results,
        [task],
        spec.filters,
        lambda text: len(lm.tok_encode(text, add_special_tokens=False)),
        tuple(cut),
        resuming.truncated,
    )


def _look(stop: Stop | None, answers: Answers, task: str) -> Look:
    """Where a task ended; `stop` is None where it cannot end early and was asked whole."""
    asked, available = len(answers.samples[task]), answers.available[task]
    if stop is None:
        reason = "asked whole: its items share texts, or its metric is not right or wrong"
        return Look(
            number=1,
            of=1,
            items=asked,
            available=available,
            quantile=Z05,
            verdict="not judged early",
            reason=reason,
        )
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
