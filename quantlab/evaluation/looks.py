"""Evaluate items in blocks, in a fixed random order, until each task's verdict is decided."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from quantlab.analysis.sequential import looks
from quantlab.analysis.stopping import Stop, after
from quantlab.analysis.verdict import Counts
from quantlab.errors import QuantlabError
from quantlab.evaluation.clusters import cluster_of
from quantlab.evaluation.samples import metric_of
from quantlab.names import BASELINE
from quantlab.records import TaskRecord
from quantlab.workspace.cell import Cell
from quantlab.workspace.results import is_stale, read_record, record_path

_AGAIN = f"evaluate {BASELINE} with this recipe first, on all items"


class Baseline(NamedTuple):
    """The unquantized model's answers: by task, by metric, by item (subtask, number, hash of its prompt)."""

    values: Mapping[str, Mapping[str, Mapping[tuple[str, int, str], float]]]

    def total(self, task: str) -> int:
        """Items of a task. Raises QuantlabError for a task that was not asked."""
        if task not in self.values:
            raise QuantlabError(f"{BASELINE} was not evaluated on {task}: {_AGAIN}")
        return max(len(items) for items in self.values[task].values())


class HasSamples(Protocol):
    """A result with the samples of each task."""

    @property
    def samples(self) -> dict[str, list[dict[str, Any]]]: ...


WithSamples = TypeVar("WithSamples", bound=HasSamples)


def read_baseline(cell: Cell) -> Baseline:
    """Raises QuantlabError where the baseline was not evaluated on all items of the recipe's tasks, as the
    recipe asks them."""
    import pandas as pd

    spec = cell.recipe.tasks
    record = read_record(record_path(cell.root, cell.model, BASELINE, "evaluate"), TaskRecord)
    path = cell.data_folder.parent / BASELINE / "samples.parquet"
    frame = pd.read_parquet(path) if path.is_file() else None
    if record is None or record.failure or frame is None or frame.empty or "prompt_hash" not in frame.columns:
        raise QuantlabError(f"{BASELINE} of {cell.model} was not evaluated: {_AGAIN}")
    if is_stale(record, cell.recipe):
        raise QuantlabError(
            f"{BASELINE} of {cell.model} was evaluated with other settings than the recipe has now: {_AGAIN}"
        )
    if (record.seed, record.chat_template) != (cell.recipe.seed, spec.chat_template):
        raise QuantlabError(
            f"{BASELINE} of {cell.model} was evaluated with another seed or chat template: {_AGAIN}"
        )
    for task, result in record.tasks.items():
        wanted = min(spec.items or (result.available or result.score.n), result.available or result.score.n)
        if result.score.n != wanted or spec.fewshot not in (None, result.fewshot):
            what = f"{result.score.n} items of {task}, {result.fewshot}-shot"
            raise QuantlabError(
                f"{BASELINE} of {cell.model} was evaluated on {what}, which is not what the recipe asks:"
                f" {_AGAIN}"
            )
    values: dict[str, dict[str, dict[tuple[str, int, str], float]]] = {}
    for row in frame.to_dict("records"):
        item = (str(row["subtask"]), int(row["doc_id"]), str(row["prompt_hash"]))
        values.setdefault(str(row["task"]), {}).setdefault(str(row["metric"]), {})[item] = float(row["value"])
    return Baseline(values)


def evaluate_in_looks(
    evaluate: Callable[[Mapping[str, int]], WithSamples], baseline: Baseline, margin: float
) -> tuple[WithSamples, dict[str, Stop | None]]:
    """Evaluate with growing sizes. Returns the last result, and by task where it stopped: None where the task
    cannot end early.

    `evaluate` takes the items wanted by task and asks nothing twice.
    """
    sizes = {task: looks(baseline.total(task))[0] for task in baseline.values}
    counts: dict[str, list[Counts]] = {task: [] for task in sizes}
    ended: dict[str, Stop | None] = {}
    while True:
        evaluated = evaluate(sizes)
        for task in [task for task in evaluated.samples if task not in ended]:
            if (
                task not in baseline.values
            ):  # it failed there: nothing to decide against, and all of its items are asked
                ended[task] = None
                continue
            total = baseline.total(task)
            at = _counts(evaluated.samples[task], baseline.values[task])
            if at is None and sizes[task] < total:
                sizes[task] = total
                continue
            if at is None:
                ended[task] = None
                continue
            counts[task].append(at)
            stop = after(counts[task], total, margin)
            if stop.final:
                ended[task] = stop
            else:
                sizes[task] = looks(total)[len(counts[task])]
        if set(evaluated.samples) <= set(ended):
            return evaluated, ended


def _counts(
    samples: Sequence[Mapping[str, Any]], values: Mapping[str, Mapping[tuple[str, int, str], float]]
) -> Counts | None:
    """None where a value is neither 0 nor 1, or where items share a text: such a task is asked whole."""
    metric = metric_of(dict(samples[0]))
    if metric is None or len({cluster_of(sample) for sample in samples}) < len(samples):
        return None
    of_baseline = values.get(metric, {})
    items = [(str(s["subtask"]), int(s["doc_id"]), str(s["prompt_hash"])) for s in samples]
    pairs = [(of_baseline.get(item), float(s[metric])) for item, s in zip(items, samples, strict=True)]
    if any(a is None for a, _ in pairs):
        raise QuantlabError(
            f"{BASELINE} has no result of some of these items, as they are asked now: {_AGAIN}"
        )
    if not {value for pair in pairs for value in pair} <= {0.0, 1.0}:
        return None
    return Counts(
        len(pairs), sum(a == 1 and b == 0 for a, b in pairs), sum(a == 0 and b == 1 for a, b in pairs)
    )
