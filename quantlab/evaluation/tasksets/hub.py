"""Run every task of lm-eval on the data that lm-eval fetches: the set `hub`."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from quantlab.evaluation.unsafe import running_code

SUMMARY = "every lm-eval task, data from the Hugging Face hub"


@functools.cache
def _manager() -> Any:
    from lm_eval.tasks import TaskManager

    return TaskManager()


def names() -> list[str]:
    """lm-eval's tasks and groups (takes seconds: lm-eval reads its whole folder)."""
    return list(_manager().all_tasks)


def unsafe(names: tuple[str, ...]) -> list[str]:
    """Read their files alone: nothing is imported or downloaded. A group's members are looked at when
    it is loaded."""
    from lm_eval.tasks._yaml_loader import load_yaml

    files = {
        name: entry.yaml_path
        for name in names
        if (entry := _manager().task_index.get(name)) and entry.yaml_path
    }
    return [name for name, path in files.items() if load_yaml(path, resolve_func=False).get("unsafe_code")]


def unsafe_members(names: tuple[str, ...]) -> list[str]:
    """The tasks among these, their members and the members of YAML files that are named instead."""
    return [task for name in names for task in running_code(name, lambda: _manager().task_index)]


def specs(names: tuple[str, ...], folder: Path) -> list[str]:
    """The names as they are."""
    return list(names)
