"""One task of the embedded set through an lm-eval language model: what it answers to each item, and how
fast."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from quantlab.evaluation import tasksets
from quantlab.evaluation.tasks import choose_items


class Answer(NamedTuple):
    """Which choice has the highest log-likelihood."""

    choice: int
    margin_nats: float
    """How far the next best one lies below it."""
    right: float
    """lm-eval's acc: 1 or 0."""


class Answers(NamedTuple):
    """Each item's answer by its index in the task, and the seconds that lm-eval took."""

    items: dict[int, Answer]
    seconds: float

    @property
    def accuracy(self) -> float:
        return sum(answer.right for answer in self.items.values()) / len(self.items)


def answer(log_likelihoods: list[float], right: float) -> Answer:
    """The best of one item's choices."""
    order = sorted(range(len(log_likelihoods)), key=lambda i: -log_likelihoods[i])
    return Answer(order[0], log_likelihoods[order[0]] - log_likelihoods[order[1]], right)


def ask(lm: Any, task: str, items: int, fewshot: int = 0) -> Answers:
    """Ask so many items of a multiple-choice task, the same ones every time. Loading the data is not in the
    seconds."""
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    with tempfile.TemporaryDirectory() as folder:
        specs = tasksets.load("embedded").specs((task,), Path(folder))
        (loaded,) = TaskManager(include_defaults=False).load(specs)["tasks"].values()
        chosen = choose_items(len(loaded.eval_docs), items, 1234)
        began = time.perf_counter()
        results = simple_evaluate(
            lm,
            tasks=[loaded],
            samples={task: chosen},
            num_fewshot=fewshot,
            bootstrap_iters=0,
            log_samples=True,
            task_manager=TaskManager(include_defaults=False),
        )
        seconds = time.perf_counter() - began
    samples = results["samples"][task]
    return Answers(
        {int(s["doc_id"]): answer([r[0][0] for r in s["resps"]], float(s["acc"])) for s in samples}, seconds
    )
