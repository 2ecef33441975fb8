"""hub: every task that lm-eval has, its data from where lm-eval fetches it."""

from __future__ import annotations

import functools
from pathlib import Path

SUMMARY = "every lm-eval task, data from the Hugging Face hub"


@functools.cache
def _names() -> tuple[str, ...]:
    from lm_eval.tasks import TaskManager

    return tuple(TaskManager().all_tasks)


def names() -> list[str]:
    """lm-eval's tasks and groups (takes seconds: lm-eval reads its whole folder)."""
    return list(_names())


def specs(names: tuple[str, ...], folder: Path) -> list[str]:
    """The names as they are."""
    return list(names)
