"""lm-eval's tasks through an endpoint: generative ones always, those on log-probabilities where the server gives them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from quantlab.endpoint.address import Address
from quantlab.endpoint.echo import OFFERED, offers_prompt_logprobs
from quantlab.endpoint.secrets import Key
from quantlab.environments.versions import installed
from quantlab.errors import CellFailure, QuantlabError
from quantlab.evaluation import tasksets
from quantlab.evaluation.tasks import Asked
from quantlab.progress import Progress
from quantlab.records import Failure
from quantlab.records.endpoint import EndpointRecord, TaskOutcome


class TasksWanted(NamedTuple):
    """Which tasks, and how many items of each."""

    names: tuple[str, ...]
    """Names of the task set, or paths of task files (`.yaml`)."""
    task_set: str
    items: int
    tokenizer: str | None
    seed: int


def check(names: tuple[str, ...], task_set: str) -> None:
    """Raise QuantlabError for a task that there is not, and where the library for it is missing."""
    if "tenacity" not in installed(("tenacity",)):
        raise QuantlabError("lm-eval's API models need tenacity: pip install 'lm-eval[api]'")
    for name in names:
        if name.endswith(".yaml") and not Path(name).is_file():
            raise QuantlabError(f"there is no task file {name}")
    tasksets.load(task_set)
    if named := tuple(name for name in names if not name.endswith(".yaml")):
        tasksets.check_tasks(task_set, named)


def evaluate(
    record: EndpointRecord, address: Address, key: Key | None, wanted: TasksWanted, progress: Progress
) -> tuple[EndpointRecord, list[dict[str, Any]]]:
    """The record with the tasks' outcomes, and the rows of samples.parquet."""
    outcomes: dict[str, TaskOutcome] = {}
    rows: list[dict[str, Any]] = []
    logprobs: str | None = None
    for task in _load(wanted):
        if task.OUTPUT_TYPE != "generate_until" and logprobs is None:
            logprobs = _prompt_logprobs(record, address, key, wanted)
        try:
            found = _run(task, record, address, key, wanted, logprobs, progress)
        except CellFailure as failure:
            outcomes[task.task_name] = TaskOutcome(failure=Failure.of(failure))
            continue
        outcomes[task.task_name], more = _outcome(task, found)
        rows += more
    update = {"tasks": outcomes, "prompt_logprobs": logprobs, "versions": record.versions | installed(("lm-eval",))}
    return record.model_copy(update=update), rows


def _load(wanted: TasksWanted) -> list[Any]:
    from lm_eval.tasks import TaskManager

    named = tuple(name for name in wanted.names if not name.endswith(".yaml"))
    files = [name for name in wanted.names if name.endswith(".yaml")]
    with tempfile.TemporaryDirectory() as folder:
        specs = [*tasksets.load(wanted.task_set).specs(named, Path(folder)), *files] if named else files
        manager = TaskManager(include_defaults=any(not spec.endswith(".yaml") for spec in specs))
        return list(manager.load(specs)["tasks"].values())


def _prompt_logprobs(record: EndpointRecord, address: Address, key: Key | None, wanted: TasksWanted) -> str:
    if wanted.tokenizer is None:
        return "not asked for: tasks on log-probabilities need the model's tokenizer, see --tokenizer"
    return offers_prompt_logprobs(address.url("completions"), record.model, key, record.workload.timeout_seconds)


def _run(
    task: Any, record: EndpointRecord, address: Address, key: Key | None, wanted: TasksWanted, logprobs: str | None, progress: Progress
) -> dict[str, Any]:
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    from quantlab.endpoint.models import chat_model, completions_model
    from quantlab.evaluation.tasks import choose_items, with_full_run_examples

    generative = task.OUTPUT_TYPE == "generate_until"
    if not generative and logprobs != OFFERED:
        raise CellFailure("unsupported", logprobs or "log-probabilities were not asked for")
    chat = generative and record.url != address.url("completions")
    seconds = record.workload.timeout_seconds
    if chat:
        lm = chat_model(address.url("chat/completions"), record.model, key, seconds)
    else:
        lm = completions_model(address.url("completions"), record.model, key, seconds, None if generative else wanted.tokenizer)
    chosen = choose_items(len(task.eval_docs), wanted.items, wanted.seed)
    with progress.step(f"{record.model}: {task.task_name} ({len(chosen)} items)"):
        found: dict[str, Any] = simple_evaluate(
            lm,
            tasks=[with_full_run_examples(task, chosen)],
            samples={task.task_name: chosen},
            apply_chat_template=chat,
            bootstrap_iters=0,
            log_samples=True,
            task_manager=TaskManager(include_defaults=False),
            random_seed=wanted.seed,
            numpy_random_seed=wanted.seed,
            torch_random_seed=wanted.seed,
            fewshot_random_seed=wanted.seed,
        )
    return found


def _outcome(task: Any, found: dict[str, Any]) -> tuple[TaskOutcome, list[dict[str, Any]]]:
    """The result in the evaluate stage's shape, and its samples."""
    from quantlab.evaluation.answers import answers_of, result_of
    from quantlab.evaluation.samples import rows_of

    answers = answers_of(found, [Asked(task.task_name, (task,))])
    rows = [row for sample in answers.samples[task.task_name] for row in rows_of(task.task_name, sample, answers.configs[task.task_name])]
    return TaskOutcome(result=result_of(task.task_name, answers)), rows
