"""Split lm-eval's result by task: samples, figures and what a record keeps of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from quantlab.evaluation.samples import (
    Sample,
    answer_tokens,
    choices_of,
    is_number,
    is_tied,
    metric_of,
    of_filter,
)
from quantlab.evaluation.tasks import AskedTask
from quantlab.records import Estimate, Failure, Look, TaskResult

_LARGEST = 1e100
"""Of a figure of the whole set: a larger perplexity, or NaN, is left out."""


class Answers(NamedTuple):
    """lm-eval's results, by the recipe's task."""

    samples: dict[str, list[Sample]]
    metrics: dict[str, dict[str, float]]
    """lm-eval's own figures."""
    configs: dict[str, dict[str, Any]]
    versions: dict[str, str]
    fewshot: dict[str, int]
    available: dict[str, int]
    """Items that the task has."""
    notes: tuple[str, ...]
    failed: dict[str, Failure] = {}
    """Tasks without an answer."""


def together(parts: Sequence[Answers], failed: Mapping[str, Failure], notes: Sequence[str] = ()) -> Answers:
    """One value of the tasks that were asked one by one."""
    fields = ("samples", "metrics", "configs", "versions", "fewshot", "available")
    merged = {
        name: {task: value for part in parts for task, value in getattr(part, name).items()}
        for name in fields
    }
    return Answers(
        **merged, notes=(*notes, *(note for part in parts for note in part.notes)), failed=dict(failed)
    )


def answers_of(
    evaluated: Mapping[str, Any],
    asked: Sequence[AskedTask],
    filters: Mapping[str, str] = {},
    count_tokens: Callable[[str], int] | None = None,
    notes: tuple[str, ...] = (),
    truncated: Mapping[tuple[str, int], Sequence[bool]] = {},
) -> Answers:
    """lm-eval's result by the recipe's tasks: a group's items are those of its members, its figures their
    means over items.

    `truncated` says by task and item, where it is known, which of its generated answers the limit on tokens
    ended."""
    result = Answers({}, {}, {}, {}, {}, {}, notes)
    for task in asked:
        leaves = [leaf.task_name for leaf in task.leaves if leaf.task_name in evaluated["samples"]]
        samples = result.samples[task.name] = []
        for leaf in leaves:
            kept = of_filter(evaluated["samples"][leaf], task.name, filters.get(task.name))
            for sample in kept:
                cut = truncated.get((leaf, int(sample["doc_id"])))
                counted = answer_tokens(sample, count_tokens, evaluated["configs"][leaf])
                more = {"answer_tokens": counted, "truncated": any(cut) if cut else None}
                samples.append({**sample, "subtask": leaf, **more})
        result.configs[task.name] = evaluated["configs"][leaves[0]]
        result.versions[task.name] = str(evaluated["versions"].get(leaves[0], ""))
        result.fewshot[task.name] = int(evaluated["n-shot"].get(leaves[0], 0))
        result.available[task.name] = task.available
        single = evaluated["results"][leaves[0]] if len(task.leaves) == 1 else None
        result.metrics[task.name] = _means(samples) if single is None else _figures(single)
    return result


def _figures(result: Mapping[str, Any]) -> dict[str, float]:
    """lm-eval's own figures of one task, without their standard errors."""
    return {
        key.removesuffix(",none"): float(value)
        for key, value in result.items()
        if is_number(value) and "_stderr" not in key
    }


def _means(samples: Sequence[Sample]) -> dict[str, float]:
    """Each metric's mean over a group's items."""
    return {
        metric: _score([float(sample[metric]) for sample in samples]).value
        for metric in samples[0]["metrics"]
        if is_number(samples[0][metric])
    }


def result_of(task: str, answers: Answers, look: Look | None = None) -> TaskResult:
    """The record of one task."""
    samples, metrics = answers.samples[task], answers.metrics[task]
    metric = metric_of(samples[0])
    multiple_choice = answers.configs[task].get("output_type") == "multiple_choice"
    tokens = [s["answer_tokens"] for s in samples if s["answer_tokens"] is not None]
    cut = [s["truncated"] for s in samples if s["truncated"] is not None]
    whole = next(iter(metrics), "")
    return TaskResult(
        metric=metric or whole.partition(",")[0],
        score=(
            _score([float(s[metric]) for s in samples])
            if metric
            else Estimate(value=metrics[whole], standard_error=None, n=len(samples))
        ),
        metrics={name: value for name, value in metrics.items() if abs(value) <= _LARGEST},
        filter=str(samples[0]["filter"]),
        task_version=answers.versions[task],
        fewshot=answers.fewshot[task],
        chance=sum(1 / choices_of(s) for s in samples) / len(samples) if multiple_choice else None,
        available=answers.available[task],
        answer_tokens=_score(tokens) if tokens else None,
        truncated_share=sum(cut) / len(cut) if cut else None,
        ties=sum(is_tied(s, metric, answers.configs[task]) for s in samples) if multiple_choice else None,
        look=look,
    )


def _score(values: list[float]) -> Estimate:
    """Mean and its standard error, the items independent."""
    import numpy as np

    array = np.asarray(values, dtype=np.float64)
    error = float(array.std(ddof=1) / np.sqrt(len(array))) if len(array) > 1 else None
    return Estimate(value=float(array.mean()), standard_error=error, n=len(array))
