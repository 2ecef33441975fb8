"""Give lm-eval's own tasks their data: one file per task set, with the set's name.

A set is a module with `SUMMARY`, `names()` (its tasks, for listing and for refusing unknown ones),
`unsafe(names)` (those whose scoring runs code that the model wrote), `unsafe_members(names)` (the same, with
the members of groups) and `specs(names, folder)`: what lm-eval's TaskManager loads, a task's name or the path
of a YAML file written in `folder`. Prompts and metrics are always lm-eval's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

from quantlab import registry
from quantlab.errors import QuantlabError, unknown


class TaskSet(Protocol):
    """The shape of a module in this folder."""

    SUMMARY: str

    def names(self) -> list[str]: ...

    def unsafe(self, names: tuple[str, ...]) -> list[str]: ...

    def unsafe_members(self, names: tuple[str, ...]) -> list[str]: ...

    def specs(self, names: tuple[str, ...], folder: Path) -> list[str]: ...


def names() -> tuple[str, ...]:
    """Every task set's name."""
    return registry.names(__path__)


def load(name: str) -> TaskSet:
    """The task set's module. Raises QuantlabError for an unknown name."""
    return cast(TaskSet, registry.load(__name__, __path__, "task set", name))


def check_tasks(task_set: str, tasks: tuple[str, ...]) -> None:
    """Raise QuantlabError for a task that the set does not have."""
    known = load(task_set).names()
    for task in tasks:
        if task not in known:
            raise unknown(
                "task", task, known, f"of the task set {task_set!r}; `quantlab list tasks` shows all"
            )


def check_safe(task_set: str, tasks: tuple[str, ...], allowed: tuple[str, ...]) -> None:
    """Raise QuantlabError for a task that runs code which the model wrote, unless it is allowed by name."""
    if refused := [name for name in load(task_set).unsafe(tasks) if name not in allowed]:
        raise QuantlabError(f"tasks.names: {refusal(refused)}")


def refusal(tasks: Sequence[str]) -> str:
    """Why such tasks do not run."""
    named = ", ".join(tasks)
    return (
        f"scoring {named} runs code that the model wrote: allow it in the recipe, `tasks: {{unsafe:"
        f" [{named}]}}`, or leave it out"
    )
