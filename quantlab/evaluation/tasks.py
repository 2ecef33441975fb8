"""Select lm-eval's tasks as a recipe names them: items and few-shot examples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from quantlab.evaluation import tasksets
from quantlab.evaluation.bad_items import failure_of, is_of_the_cell
from quantlab.recipe import TasksSpec
from quantlab.records import Failure


class AskedTask(NamedTuple):
    """What the recipe calls one task: an lm-eval task, or a group such as mmlu, whose items count as one
    task's."""

    name: str
    leaves: tuple[Any, ...]
    """lm-eval's task objects."""
    failure: Failure | None = None
    """Why it cannot be asked; it has no leaves then."""
    runs_code: bool = False
    """Whether its scoring runs code that the model wrote, which the recipe allows by name."""

    @property
    def available(self) -> int:
        """Items in all."""
        return sum(len(leaf.eval_docs) for leaf in self.leaves)

    def choose(self, wanted: int | None, seed: int) -> dict[str, list[int]]:
        """By leaf, the sorted indices of the items to ask; a leaf without one is left out."""
        chosen, first = choose_items(self.available, wanted, seed), 0
        by_leaf: dict[str, list[int]] = {}
        for leaf in self.leaves:
            count = len(leaf.eval_docs)
            if own := [index - first for index in chosen if first <= index < first + count]:
                by_leaf[leaf.task_name] = own
            first += count
        return by_leaf


def load_asked(spec: TasksSpec, folder: Path) -> list[AskedTask]:
    """The recipe's tasks in its order, each of a tag's members on its own; one that cannot be loaded says
    why.

    Raises QuantlabError for an unknown task.
    """
    from lm_eval.tasks import TaskManager

    tasksets.check_tasks(spec.set, spec.names)
    task_set = tasksets.load(spec.set)
    tasks: dict[str, AskedTask] = {}
    specs = task_set.specs(spec.names, folder)
    manager = TaskManager(include_defaults=any(not s.endswith(".yaml") for s in specs))
    unsafe = set(task_set.unsafe(spec.names)) - set(spec.unsafe)
    for name, one in zip(spec.names, specs, strict=True):
        try:
            tasks |= (
                _load(manager, name, one, spec.unsafe)
                if name not in unsafe
                else {name: _refused(name, [name])}
            )
        except Exception as error:
            if is_of_the_cell(error) and not isinstance(error, OSError):
                raise
            tasks[name] = AskedTask(name, (), Failure.of(failure_of(error, f"{name} cannot be loaded")))
    return list(tasks.values())


def _load(manager: Any, name: str, spec: str, allowed: Sequence[str]) -> dict[str, AskedTask]:
    loaded = manager.load([spec])
    code = [leaf for leaf, task in loaded["tasks"].items() if getattr(task, "UNSAFE_CODE", False)]
    if spec in loaded["groups"]:
        refused = [] if name in allowed else [leaf for leaf in code if leaf not in allowed]
        return {
            name: (
                _refused(name, refused)
                if refused
                else AskedTask(name, tuple(loaded["tasks"].values()), runs_code=bool(code))
            )
        }
    return {
        leaf: (
            _refused(leaf, [leaf])
            if leaf in code and not {leaf, name} & set(allowed)
            else AskedTask(leaf, (task,), runs_code=leaf in code)
        )
        for leaf, task in loaded["tasks"].items()
    }


def _refused(name: str, members: Sequence[str]) -> AskedTask:
    return AskedTask(name, (), Failure(kind="unsupported", reason=f"{name}: {tasksets.refusal(members)}"))


def choose_items(available: int, wanted: int | None, seed: int) -> list[int]:
    """Sorted indices of a random subset: the first `wanted` of one fixed order, so a larger subset contains a
    smaller one."""
    import numpy as np

    order = np.random.default_rng(seed).permutation(available)
    return sorted(int(i) for i in order[: wanted if wanted is not None else available])


class FullRunSampler:
    """An lm-eval few-shot sampler that gives each item the examples which a run over all items would give it.

    lm-eval's own draws from one stream, item after item: an item's examples then depend on which others were
    chosen before it, so that a larger subset would ask other prompts and a paired comparison compare them.
    """

    def __init__(self, sampler: Any, docs: Any, chosen: Sequence[int]) -> None:
        """`chosen` are the sorted indices, into `docs`, of the items that will be asked, in that order."""
        self._sampler, self._docs, self._chosen = sampler, docs, chosen
        self._drawn = self._asked = 0

    def sample(self, n: int, eval_doc: Any = None, **options: Any) -> Any:
        """The examples of the next chosen item."""
        for skipped in range(self._drawn, self._chosen[self._asked]):
            self._sampler.sample(
                n=n, eval_doc=self._docs[skipped] if eval_doc is not None else None, **options
            )
        self._drawn, self._asked = self._chosen[self._asked] + 1, self._asked + 1
        return self._sampler.sample(n=n, eval_doc=eval_doc, **options)

    def set_rnd(self, rnd: int | None) -> FullRunSampler:
        """Start the stream anew."""
        self._sampler.set_rnd(rnd)
        self._drawn = self._asked = 0
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sampler, name)


def with_full_run_examples(leaf: Any, chosen: Sequence[int]) -> Any:
    """The task, its examples independent of which items are asked."""
    if hasattr(leaf, "sampler"):
        leaf.sampler = FullRunSampler(leaf.sampler, leaf.eval_docs, chosen)
    return leaf
