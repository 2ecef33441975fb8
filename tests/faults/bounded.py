"""A command line in this process, and what must be true of one that is refused."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from click.testing import CliRunner

from quantlab.cli import main

SECONDS, BYTES = 20.0, 600 * 2**20
"""Of one refusal: the processor's time, first imports of libraries included, and memory."""
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Outcome(NamedTuple):
    """How a command line ended."""

    code: int
    stdout: str
    stderr: str
    exception: BaseException | None
    seconds: float
    more_bytes: int | None
    """How far the process's memory rose above what it had; None where the system does not say."""
    written: tuple[str, ...]
    """Files that are new, gone or other than before."""

    @property
    def wrong(self) -> list[str]:
        """What is not as it must be for a refusal."""
        said = self.stderr.splitlines()
        found = {
            f"exit code {self.code} ({self.exception!r})": self.code != 2,
            f"{len(said)} lines on stderr: {self.stderr[:500]!r}": (
                len(said) != 1 or not said[0].startswith("quantlab: ")
            ),
            f"a line of {len(self.stderr)} characters": len(self.stderr) > 2000,
            f"unprintable characters: {self.stderr[:200]!r}": not self.stderr.rstrip("\n").isprintable(),
            f"on stdout: {self.stdout[:200]!r}": self.stdout != "",
            f"a traceback: {self.stderr[-500:]}": "Traceback" in self.stderr,
            f"written: {', '.join(self.written[:5])}": bool(self.written),
            f"{self.seconds:.1f} s": self.seconds > SECONDS,
            f"{(self.more_bytes or 0) / 2**20:,.0f} MiB": (self.more_bytes or 0) > BYTES,
        }
        return [what for what, holds in found.items() if holds]


Attempt = Callable[..., Outcome]


def attempt(root: Path) -> Attempt:
    """Run command lines whose files lie under `root`."""

    def run(*arguments: str) -> Outcome:
        before, files, began = _resident(reset=True), snapshot(root), time.process_time()
        result = CliRunner().invoke(main, list(arguments))
        seconds, after = time.process_time() - began, _resident()
        exception = None if isinstance(result.exception, SystemExit) else result.exception
        more = after - before if before is not None and after is not None else None
        written = {name for name, _ in files ^ snapshot(root)}
        return Outcome(
            result.exit_code, result.stdout, result.stderr, exception, seconds, more, tuple(sorted(written))
        )

    return run


def assert_refused(outcome: Outcome, said: str) -> None:
    """One line, code 2, nothing written, in time and memory; the line says `said`, a regular expression."""
    assert not outcome.wrong, "; ".join(outcome.wrong)
    assert re.search(said, outcome.stderr), outcome.stderr


def snapshot(root: Path) -> frozenset[tuple[str, tuple[int, int]]]:
    """Every file and folder under a folder, with size and time of change, but for a workspace's lock."""
    return frozenset(
        (str(path.relative_to(root)), (stat.st_size, stat.st_mtime_ns) if not path.is_dir() else (0, 0))
        for path in root.rglob("*")
        if path.name != ".quantlab.lock"
        for stat in [path.lstat()]
    )


def _resident(reset: bool = False) -> int | None:
    """The highest resident memory since it was last reset (Linux)."""
    try:
        if reset:
            _RESET.write_text("5")
        found = re.search(r"^VmHWM:\s+(\d+) kB", _STATUS.read_text(), re.M)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None
