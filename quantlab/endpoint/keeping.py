"""Keep the answers to tasks in files as they come, so that a run that was killed asks only the others.

Only a run that did not come to its end leaves them, or whose server did not: a finished one asks everything
anew the next time, since the same address may serve another model by then."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from quantlab.endpoint.secrets import Key, redact
from quantlab.records.endpoint import EndpointRecord
from quantlab.workspace.items import Items, key_of


class TaskAnswers:
    """The answers to the requests of one task, each by what was asked; the key is masked in them."""

    def __init__(self, items: Items, key: Key | None) -> None:
        self._items, self._key = items, key
        self.taken = 0
        """How many were given again."""
        self.unfinished = False
        """Whether the server was given up before all of them were there."""

    def keys(self, bodies: Sequence[dict[str, Any]]) -> list[str]:
        """A key for each request. One that is asked several times has several answers."""
        asked, keys = Counter[str](), []
        for body in bodies:
            asked[key := key_of(body)] += 1
            keys.append(key_of(key, asked[key]))
        return keys

    def take(self, key: str) -> dict[str, Any] | None:
        """The answer that was kept; None where there is none."""
        answer: dict[str, Any] | None = self._items.get(key)
        self.taken += answer is not None
        return answer

    def keep(self, key: str, answer: dict[str, Any]) -> None:
        """Append an answer to the file."""
        self._items.add({key: redact(answer, self._key)})


class KeptAnswers:
    """The answers of one server's model under `<folder>/.quantlab/items/`."""

    def __init__(self, folder: Path, record: EndpointRecord, key: Key | None) -> None:
        self._root, self._key = folder, key
        self._of = key_of(record.url, record.model, record.server)
        self._tasks = list[TaskAnswers]()

    def of(self, task: str) -> TaskAnswers:
        """The answers to a task."""
        self._tasks.append(TaskAnswers(Items(self._root, self._of, key_of(task)), self._key))
        return self._tasks[-1]

    def finish(self) -> None:
        """Remove them all, and the folders that are empty then; unless there are questions left to ask."""
        if any(task.unfinished for task in self._tasks):
            return
        folder = Items(self._root, self._of, "any").path.parent
        shutil.rmtree(folder, ignore_errors=True)
        for above in (folder.parent, folder.parent.parent):
            if above.is_dir() and not any(above.iterdir()):
                above.rmdir()
