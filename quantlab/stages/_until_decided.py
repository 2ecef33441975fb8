"""evaluate's early end: blocks of items in their fixed random order until each task's verdict is settled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from quantlab.analysis.sequential import looks
from quantlab.analysis.stopping import Stop, after
from quantlab.analysis.verdict import Counts
from quantlab.cell import Cell
from quantlab.errors import QuantlabError
from quantlab.stages._clusters import cluster_of

BASELINE = "baseline-16"


class Baseline(NamedTuple):
    """The unquantized model's answers: by task, by metric, by item."""

    values: Mapping[str, Mapping[str, Mapping[int, float]]]

    def total(self, task: str) -> int:
        """Items of a task."""
        return max((len(items) for items in self.values.get(task, {}).values()), default=0)


def read_baseline(cell: Cell) -> Baseline:
    """Raises QuantlabError where the baseline was not evaluated on all items of the recipe's tasks."""
    import pandas as pd

    path = cell.data_folder.parent / BASELINE / "samples.parquet"
    frame = pd.read_parquet(path) if path.is_file() else None
    if frame is None or frame.empty:
        raise QuantlabError(f"{BASELINE} of {cell.model} was not evaluated: run `quantlab evaluate` for it first, on all items")
    values: dict[str, dict[str, dict[int, float]]] = {}
    for row in frame.itertuples():
        values.setdefault(str(row.task), {}).setdefault(str(row.metric), {})[int(str(row.doc_id))] = float(str(row.value))
    lacking = [task for task in cell.recipe.tasks.names if cell.recipe.tasks.set == "embedded" and task not in values]
    if lacking:
        raise QuantlabError(f"{BASELINE} of {cell.model} was not evaluated on {', '.join(lacking)}: run `quantlab evaluate` for it first")
    return Baseline(values)


def evaluate_in_looks(
    evaluate: Callable[[Mapping[str, int]], dict[str, Any]], baseline: Baseline, metric_of: Callable[[dict[str, Any]], str], margin: float
) -> tuple[dict[str, Any], dict[str, Stop | None]]:
    """What `evaluate` found with the last sizes, and by task where it stopped; None where the metric is not right or wrong.

    `evaluate` takes the items wanted by task and asks nothing twice.
    """
    sizes = {task: looks(baseline.total(task))[0] for task in baseline.values}
    counts: dict[str, list[Counts]] = {task: [] for task in sizes}
    ended: dict[str, Stop | None] = {}
    while True:
        found = evaluate(sizes)
        for task in [task for task in found["samples"] if task not in ended]:
            at = _counts(found["samples"][task], baseline.values[task], metric_of(found["samples"][task][0]))
            if at is None and sizes[task] < baseline.total(task):
                sizes[task] = baseline.total(task)
                continue
            if at is None:
                ended[task] = None
                continue
            counts[task].append(at)
            stop = after(counts[task], baseline.total(task), margin)
            if stop.final:
                ended[task] = stop
            else:
                sizes[task] = looks(baseline.total(task))[len(counts[task])]
        if set(found["samples"]) <= set(ended):
            return found, ended


def _counts(samples: list[dict[str, Any]], values: Mapping[str, Mapping[int, float]], metric: str) -> Counts | None:
    """None where a value is neither 0 nor 1, or where items share a passage: such a task is asked whole."""
    if len({cluster_of(sample) for sample in samples}) < len(samples):
        return None
    theirs = values.get(metric, {})
    pairs = [(theirs.get(int(sample["doc_id"])), float(sample[metric])) for sample in samples]
    if any(a is None for a, _ in pairs):
        raise QuantlabError(f"{BASELINE} has no result of some of these items: evaluate it again with this recipe")
    if not {value for pair in pairs for value in pair} <= {0.0, 1.0}:
        return None
    return Counts(len(pairs), sum(a == 1 and b == 0 for a, b in pairs), sum(a == 0 and b == 1 for a, b in pairs))
