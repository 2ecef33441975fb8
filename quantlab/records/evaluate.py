"""Define the record of the evaluate stage: lm-eval's tasks."""

from __future__ import annotations

from quantlab.frozen import Frozen
from quantlab.records.base import Estimate, Failure, Record


class Look(Frozen):
    """Where `evaluate --until-decided` ended a task."""

    number: int
    """1 for the first look."""
    of: int
    items: int
    available: int
    quantile: float
    """Of the normal distribution: this look's boundary, 1.645 where there is one look alone."""
    verdict: str
    reason: str


class TaskResult(Frozen):
    """One lm-eval task on one checkpoint."""

    metric: str
    """The metric that the comparison uses (lm-eval's `acc_norm` where the task has it, else `acc`, ...)."""
    score: Estimate
    metrics: dict[str, float]
    """Every metric that lm-eval reported for it."""
    task_version: str
    fewshot: int
    chance: float | None = None
    filter: str = "none"
    """lm-eval's filter whose answers these are."""
    available: int | None = None
    """Items that the task has, of which `score.n` were asked."""
    answer_tokens: Estimate | None = None
    """Mean tokens of a generated answer's text; None where nothing is generated."""
    truncated_share: float | None = None
    """Share of the items of which the limit on tokens ended a generated answer, before a stop string or an
    end token; None where nothing is generated, or where it is not known."""
    ties: int | None = None
    """Items with more than one best choice, of which lm-eval takes the first; None where there are no
    choices, or where it was not recorded."""
    look: Look | None = None
    """None where all items of the recipe were asked at once."""


class TaskRecord(Record):
    """The evaluate stage's result; per-sample results lie beside it in samples.parquet."""

    tasks: dict[str, TaskResult] = {}
    failed: dict[str, Failure] = {}
    """Tasks that have no result, though others of the cell do."""
    scored_in: str | None = None
    """What log-likelihoods were computed in, in words; None where it was not recorded."""
    seed: int | None = None
    chat_template: bool = False
    dense: bool = False
    seconds: float | None = None
