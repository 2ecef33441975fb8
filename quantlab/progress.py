"""Show progress of long work on standard error, and send the libraries' output to a log file.

On a terminal a live bar with the elapsed and the remaining time; elsewhere (CI, a pipe) a line every 15
seconds."""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Protocol

from quantlab.inert import plain


class Step(Protocol):
    """One piece of work that is under way."""

    def advance(self, amount: float = 1) -> None: ...

    def total(self, total: float) -> None: ...


class _Bar:
    def __init__(self, console: IO[str], what: str, total: float | None) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = [
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
        ]
        self._progress = Progress(
            *columns,
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(file=console),
            transient=True,
        )
        self._progress.start()
        self._task = self._progress.add_task(what, total=total)

    def advance(self, amount: float = 1) -> None:
        self._progress.advance(self._task, amount)

    def total(self, total: float) -> None:
        self._progress.update(self._task, total=total)

    def stop(self) -> None:
        self._progress.stop()


class _Lines:
    """For output that is not a terminal: a line at intervals, with the time left where it can be told."""

    INTERVAL_SECONDS = 15.0

    def __init__(self, console: IO[str], what: str, total: float | None) -> None:
        self._console, self._what, self._total = console, what, total
        self._done, self._began = 0.0, time.monotonic()
        self._said = self._began

    def advance(self, amount: float = 1) -> None:
        self._done += amount
        now = time.monotonic()
        if now - self._said >= self.INTERVAL_SECONDS:
            self._said = now
            elapsed = now - self._began
            left = (
                f", about {elapsed * (self._total - self._done) / self._done:.0f} s left"
                if self._total and self._done
                else ""
            )
            share = f" {100 * self._done / self._total:.0f} %" if self._total else ""
            print(f"  {self._what}:{share} after {elapsed:.0f} s{left}", file=self._console, flush=True)

    def total(self, total: float) -> None:
        self._total = total

    def stop(self) -> None: ...


class _Silent:
    def advance(self, amount: float = 1) -> None: ...

    def total(self, total: float) -> None: ...


class Progress:
    """Tells a person what is being done. `quiet` says nothing."""

    def __init__(self, quiet: bool = False, console: IO[str] | None = None) -> None:
        self.quiet = quiet
        self._console = console or sys.stderr

    def say(self, text: str) -> None:
        """One line."""
        if not self.quiet:
            print(plain(text), file=self._console, flush=True)

    def descriptor(self) -> int | None:
        """The terminal's file descriptor, for a child process that says how far it is; None where nothing is
        to be said."""
        try:
            return None if self.quiet else self._console.fileno()
        except (OSError, ValueError):  # a stream of a test's, which has none
            return None

    @contextmanager
    def step(self, what: str, total: float | None = None) -> Iterator[Step]:
        """A piece of work; `total` in the units that `advance` counts."""
        if self.quiet:
            yield _Silent()
            return
        bar = (_Bar if self._console.isatty() else _Lines)(self._console, plain(what), total)
        try:
            yield bar
        finally:
            bar.stop()


class _Forgiving(io.RawIOBase):
    """Writes to a descriptor, and drops what it does not take."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        with suppress(OSError):
            os.write(self._descriptor, view)
        return len(view)


@contextmanager
def _forgiving_streams() -> Iterator[None]:
    """Python's own streams, where they are those of the process, as ones whose writing never raises."""
    before = {
        name: getattr(sys, name)
        for name, number in (("stdout", 1), ("stderr", 2))
        if _descriptor(getattr(sys, name)) == number
    }
    for name, stream in before.items():
        raw = io.BufferedWriter(_Forgiving(stream.fileno()), 1)
        setattr(
            sys, name, io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", line_buffering=True)
        )
    try:
        yield
    finally:
        for name, stream in before.items():
            getattr(sys, name).flush()
            setattr(sys, name, stream)


def _descriptor(stream: IO[str]) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return None  # a test's buffer


def _open_log(log: Path, console: IO[str]) -> int:
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        return os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        print(
            f"quantlab: {log} cannot be written ({error.strerror}): the libraries' own output is lost",
            file=console,
        )
        return os.open(os.devnull, os.O_WRONLY)


def append(log: Path, text: str) -> None:
    """Append to a log, where it can be written."""
    with suppress(OSError):
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as file:
            file.write(text)


@contextmanager
def noise_to(log: Path, quiet: bool = False) -> Iterator[Progress]:
    """Send what the process and its libraries print, C code included, to a log file; the progress still
    reaches the terminal.

    The log is appended to; its path is part of every unexpected error's message. One that cannot be written,
    on a full disk, loses lines and stops nothing."""
    sys.stdout.flush()
    sys.stderr.flush()
    out, err = os.dup(1), os.dup(2)
    console = os.fdopen(os.dup(err), "w", encoding="utf-8", buffering=1)
    target = _open_log(log, console)
    os.dup2(target, 1)
    os.dup2(target, 2)
    try:
        with _forgiving_streams():
            yield Progress(quiet, console)
    finally:
        os.dup2(out, 1)
        os.dup2(err, 2)
        for handle in (out, err, target):
            os.close(handle)
        console.close()
