"""Define the two kinds of failure: a mistake of the user's, and an outcome of a cell.

Anything else is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Literal

FailureKind = Literal[
    "not_offered",  # the method has no such bit width
    "not_installed",  # the library that does it is missing
    "does_not_fit",  # the device or the disk is too small for it
    "out_of_memory",  # it was tried and memory ran out
    "unsupported",  # the library refuses this model or these settings
    "broken_checkpoint",  # it was saved, and what was saved is not the model that was quantized
    "crashed",  # the process died, or the library raised what nobody expected
    "not_measured",  # an earlier stage of the cell failed
    "disk_full",  # the disk, a quota or a limit on the size of files was reached
    "killed",  # the process was ended from outside: by a person, a scheduler or the system
    "stale",  # there is a record, made with other settings than the recipe has now
]
TRANSIENT: frozenset[FailureKind] = frozenset({"disk_full", "killed"})
"""Kinds that say nothing of the cell: the next run tries it again (quantlab/run/retries.py)."""


class QuantlabError(Exception):
    """A mistake that the user can mend: one line that says what, why and what to do; exit code 2."""


class CellFailure(Exception):
    """What a cell could not do. In a grid it is recorded and the other cells go on."""

    def __init__(self, kind: FailureKind, reason: str) -> None:
        super().__init__(reason)
        self.kind: FailureKind = kind
        self.reason = reason


def unknown(what: str, name: str, known: Iterable[str], hint: str = "") -> QuantlabError:
    """The error for a name that does not exist: it lists the valid ones, nearest first."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=len(names), cutoff=0.0)
    listed = ", ".join(near[:12] + (["..."] if len(near) > 12 else [])) or "none"
    return QuantlabError(f"unknown {what} {name!r}: known are {listed}" + (f"; {hint}" if hint else ""))
