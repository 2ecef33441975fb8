"""Ask a worker process of another environment's interpreter, and survive its death and its silence.

The other side is `quantlab.apart.serving`: a line of JSON each way, arrays through files. Whatever ends the
worker is a CellFailure with the last lines of its log; everything that it printed goes to standard error in
the end, where a stage keeps its log."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from quantlab import apart, processes
from quantlab.apart.arrays import put, take
from quantlab.errors import CellFailure, FailureKind
from quantlab.outside import ended_from_outside, memory_kills

if TYPE_CHECKING:
    from quantlab.apart.arrays import Arrays

LIMIT_SECONDS = 3600.0
"""The longest that one command may take, unless QUANTLAB_WORKER_SECONDS says otherwise."""
IDLE_SECONDS = 300.0
"""The longest that a worker may leave a command unanswered without using a processor: it hangs."""
_BUSY_SHARE = 0.02
"""Of a processor's time that counts as use."""
_LAST_LINES, _LONGEST = 3, 300
_START = Path(apart.__file__).with_name("start.py")
_NOT_THEIRS = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
"""Of quantlab's own environment."""


class Reply(NamedTuple):
    """What a worker answers."""

    values: dict[str, Any]
    arrays: dict[str, Any]


class WorkerProcess:
    """A process that obeys the `Commands` of a module in another environment."""

    def __init__(self, name: str, python: Path, module: str, environment: Mapping[str, str]) -> None:
        """`name` is what messages call it."""
        self._name = name
        self._folder = Path(tempfile.mkdtemp(prefix="quantlab-worker-"))
        self._log = self._folder / "log"
        self._log.touch()
        self._limit = float(os.environ.get("QUANTLAB_WORKER_SECONDS") or LIMIT_SECONDS)
        self._kills, self._ended = memory_kills(), False
        clean = {key: value for key, value in environment.items() if key not in _NOT_THEIRS}
        self._process = subprocess.Popen(
            [str(python), "-P", str(_START), module, str(self._log)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log.open("ab"),
            env=clean | {"PYTHONNOUSERSITE": "1"},
            preexec_fn=processes.child_begins(),
        )

    def ask(self, do: str, arrays: Arrays | None = None, **values: Any) -> Reply:
        """Have a command carried out. Raises CellFailure where it fails, dies or hangs."""
        if self._ended:
            raise CellFailure("crashed", f"{self._name} ended before, so {do!r} was not asked")
        assert self._process.stdin is not None
        line = json.dumps({"do": do, **values, "arrays": put(self._folder, "asked", arrays or {})})
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        reply = json.loads(self._answer(do))
        if "bug" in reply:
            raise CellFailure("crashed", f"{self._name}: {reply['bug']}")
        if "failure" in reply:
            raise CellFailure(reply["failure"]["kind"], reply["failure"]["reason"])
        return Reply(reply["values"], take(reply["arrays"]))

    def _answer(self, do: str) -> bytes:
        """The line that answers. Raises CellFailure where there is none, or none in time."""
        assert self._process.stdout is not None
        pipe, began = self._process.stdout.fileno(), time.monotonic()
        active, used, got = began, self._processor_seconds(), b""
        while not got.endswith(b"\n"):
            if select.select([pipe], [], [], 1.0)[0]:
                chunk = os.read(pipe, 2**16)
                if not chunk:
                    raise self._death(do)
                got += chunk
                continue
            now, seconds = time.monotonic(), self._processor_seconds()
            if seconds - used > _BUSY_SHARE * (now - active):
                active, used = now, seconds
            if now - began > self._limit:
                raise self._silence(do, f"took more than {self._limit:g} s")
            if now - active > IDLE_SECONDS:
                raise self._silence(do, f"used no processor for {IDLE_SECONDS:g} s and did not answer")
        return got

    def _processor_seconds(self) -> float:
        """Of the worker and what it started."""
        import psutil

        total = 0.0
        with contextlib.suppress(psutil.Error):
            top = psutil.Process(self._process.pid)
            for one in (top, *top.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    times = one.cpu_times()
                    total += times.user + times.system
        return total

    def _silence(self, do: str, what: str) -> CellFailure:
        said = self._last_lines()
        self.close(0)
        return CellFailure("crashed", f"{self._name} {what} ({do}) and was ended{said}")

    def _death(self, do: str) -> CellFailure:
        code, said = self._process.wait(), self._last_lines()
        outside = ended_from_outside(code, self._kills, self._folder, self._name)
        out_of_memory = "out of memory" in self._log_text().lower()
        self.close(0)
        if outside:
            return outside
        how = f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        kind: FailureKind = "out_of_memory" if out_of_memory else "crashed"
        return CellFailure(kind, f"{self._name} {how} ({do}){said}")

    def _log_text(self) -> str:
        return self._log.read_bytes()[-(2**16) :].decode("utf-8", "replace") if self._log.exists() else ""

    def _last_lines(self) -> str:
        lines = [line for line in self._log_text().splitlines() if line.strip()][-_LAST_LINES:]
        text = " ".join(" | ".join(lines).split())
        return f"; its last words: {text[-_LONGEST:]}" if text else ""

    def resident(self) -> tuple[int, int]:
        """Resident bytes of the worker and what it started, now, and the worker's own highest since it
        began (as much as now where the system does not tell)."""
        import psutil

        now = peak = 0
        with contextlib.suppress(psutil.Error, OSError):
            top = psutil.Process(self._process.pid)
            for one in (top, *top.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    held = one.memory_info()
                    now, peak = now + held.rss, peak + max(_highest(one.pid), held.rss)
        return now, peak

    def close(self, patience: float = 30.0) -> None:
        """End the process; returns when it is gone and its memory with it."""
        if self._ended:
            return
        self._ended = True
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        try:
            self._process.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            processes.end_tree(self._process.pid)
            self._process.wait()
        sys.stderr.write(self._log_text())
        sys.stderr.flush()
        shutil.rmtree(self._folder, ignore_errors=True)


def _highest(pid: int) -> int:
    """VmHWM in bytes, 0 where the system does not tell."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        status = Path(f"/proc/{pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    return 0
