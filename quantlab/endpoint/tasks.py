"""Run lm-eval's tasks through an endpoint: generative ones always, others if the server gives
log-probabilities."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from quantlab.endpoint.address import Address
from quantlab.endpoint.asking import Server
from quantlab.endpoint.client import LONGEST_MESSAGE
from quantlab.endpoint.echo import OFFERED, offers_prompt_logprobs
from quantlab.endpoint.keeping import KeptAnswers
from quantlab.endpoint.outcomes import crash_of, notes_of, outcome_of
from quantlab.endpoint.secrets import Key
from quantlab.environments.versions import installed
from quantlab.errors import CellFailure, QuantlabError
from quantlab.evaluation import tasksets
from quantlab.progress import Progress
from quantlab.records import Failure
from quantlab.records.endpoint import EndpointRecord, TaskOutcome

if TYPE_CHECKING:
    from quantlab.endpoint.models import Collected

Keep = Callable[[EndpointRecord, list[dict[str, Any]]], object]


class TasksWanted(NamedTuple):
    """Which tasks, and how many items of each."""

    names: tuple[str, ...]
    """Names of the task set, or paths of task files (`.yaml`)."""
    task_set: str
    items: int
    tokenizer: str | None
    seed: int


def check(names: tuple[str, ...], task_set: str) -> None:
    """Raise QuantlabError for a task that there is not, for one whose scoring runs code that the model wrote,
    and where the library for it is missing."""
    if "tenacity" not in installed(("tenacity",)):
        raise QuantlabError("lm-eval's API models need tenacity: pip install 'lm-eval[api]'")
    for name in names:
        if name.endswith(".yaml") and not Path(name).is_file():
            raise QuantlabError(f"there is no task file {name}")
    tasksets.load(task_set)
    if named := tuple(name for name in names if not name.endswith(".yaml")):
        tasksets.check_tasks(task_set, named)
    if unsafe := [*tasksets.load(task_set).unsafe_members(named), *_unsafe_in_files(names)]:
        listed = ", ".join(unsafe[:6]) + (", ..." if len(unsafe) > 6 else "")
        raise QuantlabError(
            f"scoring {listed} runs code that the model wrote, which quantlab"
            " endpoint never does: leave it out of --tasks"
        )


def _unsafe_in_files(names: tuple[str, ...]) -> list[str]:
    """What the task files name. One that cannot be read is the outcome of its task, which does not run."""
    import yaml

    from quantlab.evaluation.tasksets import hub

    unsafe = []
    for name in (name for name in names if name.endswith(".yaml")):
        with contextlib.suppress(OSError, ValueError, yaml.YAMLError):
            unsafe += hub.unsafe_members((name,))
    return unsafe


class _Asked(NamedTuple):
    """What every task is asked with."""

    record: EndpointRecord
    address: Address
    key: Key | None
    wanted: TasksWanted
    progress: Progress
    kept: KeptAnswers | None


def evaluate(
    record: EndpointRecord,
    address: Address,
    key: Key | None,
    wanted: TasksWanted,
    progress: Progress,
    keep: Keep = lambda record, rows: None,
    kept: KeptAnswers | None = None,
) -> tuple[EndpointRecord, list[dict[str, Any]]]:
    """The record with the tasks' outcomes, and the rows of samples.parquet.

    A task that fails leaves the others: whatever lm-eval or the task's own code raises is that task's
    outcome. `keep` gets what there is after each task, so that an interrupted run leaves what it had; `kept`
    has the answers of one that was interrupted before, and gets each as it comes."""
    asked = _Asked(record, address, key, wanted, progress, kept)
    outcomes: dict[str, TaskOutcome] = {}
    rows: list[dict[str, Any]] = []
    update: dict[str, Any] = {"versions": record.versions | installed(("lm-eval",))}

    def so_far() -> EndpointRecord:
        notes = (*record.notes, *notes_of(outcomes))
        return record.model_copy(update=update | {"tasks": dict(outcomes), "notes": notes})

    for name, task in _load(wanted, outcomes):
        if task.OUTPUT_TYPE != "generate_until" and "prompt_logprobs" not in update:
            update["prompt_logprobs"] = _prompt_logprobs(record, address, key, wanted)
        try:
            outcomes[name], more = _run(task, asked, update.get("prompt_logprobs"))
            rows += more
        except CellFailure as failure:
            outcomes[name] = TaskOutcome(failure=Failure.of(failure))
        except Exception as error:  # the task's own code may raise anything
            outcomes[name] = crash_of(error)
        keep(so_far(), rows)
    if kept:
        kept.finish()
    return so_far(), rows


def _load(wanted: TasksWanted, outcomes: dict[str, TaskOutcome]) -> Iterator[tuple[str, Any]]:
    """The tasks one after the other, by name; one that cannot be loaded becomes an outcome."""
    from lm_eval.tasks import TaskManager

    named = tuple(name for name in wanted.names if not name.endswith(".yaml"))
    files = [name for name in wanted.names if name.endswith(".yaml")]
    with tempfile.TemporaryDirectory() as folder:
        specs = [*tasksets.load(wanted.task_set).specs(named, Path(folder)), *files] if named else files
        manager = TaskManager(include_defaults=any(not spec.endswith(".yaml") for spec in specs))
        for spec in specs:
            try:
                loaded = list(manager.load([spec])["tasks"].values())
            except Exception as error:
                outcomes[Path(spec).stem if spec.endswith(".yaml") else spec] = crash_of(error)
                continue
            yield from ((task.task_name, task) for task in loaded)


def _prompt_logprobs(record: EndpointRecord, address: Address, key: Key | None, wanted: TasksWanted) -> str:
    if wanted.tokenizer is None:
        return "not asked for: tasks on log-probabilities need the model's tokenizer, see --tokenizer"
    return offers_prompt_logprobs(
        address.url("completions"), record.model, key, record.workload.timeout_seconds
    )


def _concurrency(record: EndpointRecord) -> int:
    """The most requests at a time that were asked for and all answered well; 1 where no level was."""
    return max(
        (level.concurrency for level in record.levels if level.summary.good and not level.summary.faults),
        default=1,
    )


def _run(task: Any, asked: _Asked, logprobs: str | None) -> tuple[TaskOutcome, list[dict[str, Any]]]:
    from quantlab.endpoint.models import Collected, chat_model, completions_model
    from quantlab.evaluation.tasks import choose_items

    record, wanted = asked.record, asked.wanted
    generative = task.OUTPUT_TYPE == "generate_until"
    if getattr(task, "UNSAFE_CODE", False):
        raise CellFailure(
            "unsupported", "the task runs the code that a model writes, on this machine: it is not run"
        )
    if not generative and logprobs != OFFERED:
        raise CellFailure("unsupported", logprobs or "log-probabilities were not asked for")
    chat = generative and record.url != asked.address.url("completions")
    chosen = choose_items(len(task.eval_docs), wanted.items, wanted.seed)
    url = asked.address.url("chat/completions" if chat else "completions")
    with asked.progress.step(f"{record.model}: {task.task_name} ({len(chosen)} items)") as step:
        server = Server(url, asked.key, record.workload.timeout_seconds, _concurrency(record))
        answers = asked.kept.of(task.task_name) if asked.kept else None
        collected = Collected(server, chosen, step.advance, answers)
        if chat:
            lm = chat_model(collected, record.model, record.limit_field)
        else:
            lm = completions_model(
                collected, record.model, record.limit_field, None if generative else wanted.tokenizer
            )
        result = _score(lm, task, chat, collected, wanted.seed)
    return outcome_of(task, result, collected)


def _score(lm: Any, task: Any, chat: bool, collected: Collected, seed: int) -> dict[str, Any]:
    """lm-eval's result over the items that were answered: where some were lost, it scores the others once
    more."""
    sampler, chosen = getattr(task, "sampler", None), list(collected.chosen)
    scoring, crash = task.process_results, None
    _guard(task, collected)
    try:
        result = _simple_evaluate(lm, task, chat, chosen, seed)
    except Exception as error:  # it may be a placeholder's: without a lost item it is raised again
        crash = error
    finally:
        task.process_results = scoring
    if not collected.lost:
        if crash:
            raise crash
        return result
    kept = [item for item in chosen if item not in collected.lost]
    if not kept:
        item, reason = next(iter(collected.lost.items()))
        raise CellFailure("not_measured", f"no item was answered well; item {item}: {reason}")
    collected.keep(kept)
    if sampler is not None:
        task.sampler = sampler
    return _simple_evaluate(lm, task, chat, kept, seed)


def _guard(task: Any, collected: Collected) -> None:
    """Let an item that the task's own code cannot score be lost, and not the task with it."""
    scoring, count = task.process_results, itertools.count()
    items = list(collected.chosen)

    def process_results(doc: Any, results: Any) -> Any:
        item = items[next(count) % len(items)]  # lm-eval goes through all of them for each filter
        try:
            return scoring(doc, results)
        except Exception as error:
            said = " ".join(f"{type(error).__name__}: {error}".split())
            collected.lost.setdefault(item, f"the task cannot score its answer: {said}"[:LONGEST_MESSAGE])
            return {}

    task.process_results = process_results


def _simple_evaluate(lm: Any, task: Any, chat: bool, chosen: list[int], seed: int) -> dict[str, Any]:
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    from quantlab.evaluation.tasks import with_full_run_examples

    result: dict[str, Any] = simple_evaluate(
        lm,
        tasks=[with_full_run_examples(task, chosen)],
        samples={task.task_name: chosen},
        apply_chat_template=chat,
        bootstrap_iters=0,
        log_samples=True,
        task_manager=TaskManager(include_defaults=False),
        random_seed=seed,
        numpy_random_seed=seed,
        torch_random_seed=seed,
        fewshot_random_seed=seed,
    )
    return result
