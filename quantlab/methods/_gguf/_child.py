"""Wait for a process of llama.cpp: a crash or a hang is an outcome of the cell and not of this process."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from quantlab.environments.deaths import ending
from quantlab.errors import CellFailure, FailureKind
from quantlab.outside import ended_from_outside, memory_kills
from quantlab.processes import child_begins

_LAST_WORDS_BYTES = 2**16


class Ended(NamedTuple):
    """How a process ended by itself."""

    code: int
    said: str
    """The end of its output."""


def run_child(
    what: str,
    command: Sequence[str],
    log: Path,
    seconds: float,
    environment: Mapping[str, str],
    files: Sequence[int] = (),
) -> Ended:
    """Run a command, its output appended to `log`; `files` are descriptors that it inherits.

    Raises CellFailure where a signal ended it or it did not end in so many seconds; it never outlives this
    call."""
    with _open(log) as file:
        began = file.seek(0, os.SEEK_END)
        kills = memory_kills()
        child = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            pass_fds=files,
            preexec_fn=child_begins(),
        )
        try:
            code = child.wait(seconds)
        except subprocess.TimeoutExpired:
            raise CellFailure(
                "crashed", f"{what} did not end within {seconds:,.0f} s (its output is in {log.name})"
            ) from None
        finally:
            child.kill()
            child.wait()
        file.seek(max(began, file.seek(0, os.SEEK_END) - _LAST_WORDS_BYTES))
        said = file.read().decode("utf-8", errors="replace")
    if code < 0:
        raise ended_from_outside(code, kills, Path.cwd(), what) or _died(what, -code, log, said)
    return Ended(code, said)


def _open(log: Path) -> IO[bytes]:
    """The log, or where it cannot be written a file without a name, for the last words."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        return log.open("a+b")
    except OSError:
        return tempfile.TemporaryFile("a+b")


def _died(what: str, number: int, log: Path, said: str) -> CellFailure:
    kind: FailureKind = "out_of_memory" if "out of memory" in said.lower() else "crashed"
    return CellFailure(kind, f"{what} {ending(-number)} (its output is in {log.name})")
