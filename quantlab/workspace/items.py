"""Keep unfinished work item by item in `.quantlab/items/<checkpoint hash>/<what>.jsonl`.

DVC deletes a stage's outputs before it runs it, so what a killed run had finished lies here, outside them. An
item is keyed by a hash of everything that decides its result; a line that was cut off by a kill is ignored.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def key_of(*parts: Any) -> str:
    """A key for what decides an item's result."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


class Items:
    """Finished items of one piece of work; appended to, never rewritten."""

    def __init__(self, root: Path, checkpoint_sha256: str, what: str) -> None:
        self.path = root / ".quantlab" / "items" / checkpoint_sha256[:32] / f"{what}.jsonl"
        self._values: dict[str, Any] = {}
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                try:
                    entry = json.loads(line)
                    self._values[entry["key"]] = entry["value"]
                except (json.JSONDecodeError, KeyError, TypeError):
                    continue  # the last line of a run that was killed while writing it

    def get(self, key: str) -> Any | None:
        """The value of a finished item, None where it is not finished."""
        return self._values.get(key)

    def add(self, values: dict[str, Any]) -> None:
        """Append finished items in one write."""
        self._values.update(values)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        torn = self.path.exists() and self.path.stat().st_size > 0 and not self._ends_whole()
        with self.path.open("a", encoding="utf-8") as file:
            file.write(
                ("\n" if torn else "")
                + "".join(json.dumps({"key": k, "value": v}) + "\n" for k, v in values.items())
            )

    def _ends_whole(self) -> bool:
        with self.path.open("rb") as file:
            file.seek(-1, 2)
            return file.read(1) == b"\n"
