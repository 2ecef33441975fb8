"""A worker process from its parent's side: a checkpoint in an engine that can be loaded, run and lost without harm."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from types import TracebackType
from typing import Any, NamedTuple

from quantlab.cell import Cell
from quantlab.errors import CellFailure, FailureKind, QuantlabError
from quantlab.isolation import log_path


class WorkerDied(CellFailure):
    """The worker's process ended in the middle of a command."""


class Workload(NamedTuple):
    """One run: a prefill of `length` tokens in `batch` sequences, then a decode."""

    batch: int
    context: int
    prompt: int
    decode: int

    @property
    def length(self) -> int:
        return self.context + self.prompt

    @property
    def label(self) -> str:
        return f"b{self.batch} c{self.context}"


class Worker:
    """A process that holds one cell's engine, for the length of a `with` block."""

    def __init__(self, cell: Cell, engine: str, device: str) -> None:
        self.cell, self.engine = cell, engine
        self._log = log_path(cell, "measure")
        job = {"root": str(cell.root), "model": cell.model, "variant": cell.variant.slug, "engine": engine, "device": device}
        self._job = json.dumps(job | {"log": str(self._log)})
        self.about: dict[str, Any] = {}
        self.last: Workload | None = None

    def __enter__(self) -> Worker:
        self._start()
        return self

    def revive(self) -> None:
        """Load the checkpoint again in a new process where the process died. Raises CellFailure where that fails."""
        if self._process.poll() is not None:
            self.restart()
            self.open_device()
            self.load()

    def restart(self) -> None:
        """A new process with nothing loaded, for the one that died."""
        self.close()
        self.last = None
        self._start()

    def _start(self) -> None:
        command = [sys.executable, "-m", "quantlab.measuring.worker", self._job]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    @property
    def pid(self) -> int:
        return self._process.pid

    def open_device(self) -> dict[str, Any]:
        return self._ask(do="open_device")

    def load(self) -> dict[str, Any]:
        """Raises CellFailure where the checkpoint does not load here."""
        self.about = self._ask(do="load")
        return self.about

    def prefill(self, work: Workload) -> dict[str, Any]:
        self.last = work
        return self._ask(do="prefill", batch=work.batch, length=work.length)

    def decode(self, work: Workload) -> dict[str, Any]:
        return self._ask(do="decode", tokens=work.decode)

    def warm_up(self, work: Workload) -> None:
        """Run the workload once where the last run was another one. Raises CellFailure."""
        self.revive()
        if self.last != work:
            self.prefill(work)
            self.decode(work)

    def _ask(self, **command: Any) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise self._death()
        found: dict[str, Any] = json.loads(answer)
        if "usage" in found:
            raise QuantlabError(found["usage"])
        if "bug" in found:
            raise CellFailure("crashed", f"{found['bug']} (traceback in {self._log.relative_to(self.cell.root)})")
        if "failure" in found:
            raise CellFailure(found["failure"]["kind"], found["failure"]["reason"])
        return found

    def _death(self) -> WorkerDied:
        code = self._process.wait()
        kind: FailureKind = "out_of_memory" if code == -signal.SIGKILL else "crashed"
        if code == -signal.SIGKILL:
            return WorkerDied(kind, "the process was killed by the operating system (signal 9), most likely for want of memory")
        how = f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        return WorkerDied(kind, f"the process {how}; its output is in {self._log.relative_to(self.cell.root)}")

    def close(self) -> None:
        """End the process; returns when it is gone and its memory with it."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
