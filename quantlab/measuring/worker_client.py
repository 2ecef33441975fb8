"""Control a worker process from its parent: load a checkpoint, run it, and survive its crash."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from types import TracebackType
from typing import Any, NamedTuple

from quantlab import engines
from quantlab.environments.deaths import ending
from quantlab.errors import CellFailure, FailureKind, QuantlabError
from quantlab.hardware.device import parse_places
from quantlab.measuring.sampling_client import SamplingClient
from quantlab.outside import ended_from_outside, memory_kills, short_of_memory
from quantlab.workspace.cell import Cell
from quantlab.workspace.logs import log_path, said_out_of_memory, size_of


class WorkerDied(CellFailure):
    """The worker's process ended in the middle of a command."""


class GridPoint(NamedTuple):
    """One run: a prefill of `length` tokens in `batch` sequences, then a decode."""

    batch: int
    context: int
    prompt: int
    decode: int

    @property
    def length(self) -> int:
        return self.context + self.prompt

    @property
    def tokens(self) -> int:
        """Of each sequence at the end: the prefill's last logits give one more than the decode."""
        return self.length + 1 + self.decode

    @property
    def label(self) -> str:
        return f"b{self.batch} c{self.context}"


class Worker:
    """A process that holds one cell's engine, for the length of a `with` block."""

    def __init__(
        self, cell: Cell, engine: str, device: str, tokens: int | None = None, sequences: int = 1
    ) -> None:
        """`tokens` are those of the longest sequence that it will run, `sequences` the most at the same
        time."""
        self.cell, self.engine = cell, engine
        self._log = log_path(cell, "measure")
        place = engines.load(engine).place(device, dict(os.environ) | {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"})
        self._environment, device = place
        spin = self._environment.get("OMP_WAIT_POLICY", "").lower() == "active"
        self._stops = spin and sys.platform == "linux" and not parse_places(device).gpus
        """Whether it is stopped while it waits for a command, since its idle threads would go on spinning on
        the cores of the process whose turn it is. Not otherwise: a process that was stopped begins a prefill
        some milliseconds later. Linux alone ends a stopped process with its parent."""
        job = {
            "root": str(cell.root),
            "model": cell.model,
            "variant": cell.variant.slug,
            "engine": engine,
            "device": device,
            "tokens": tokens,
            "sequences": sequences,
        }
        self._job = json.dumps(job | {"log": str(self._log)})
        self.about: dict[str, Any] = {}
        self.last: GridPoint | None = None
        self.sampler: SamplingClient | None = None
        """Who watches it; told of a new process that is started during the timed repeats."""
        self._loaded = self._broken = False

    def __enter__(self) -> Worker:
        self._start()
        return self

    def revive(self) -> None:
        """Load the checkpoint again in a new process where this one is not fit for work. Raises CellFailure
        where that fails."""
        if not self.fit:
            self.restart()
            if self.sampler:
                self.sampler.watch(self.pid, "timed repeats")
            self.open_device()
            self.load()

    @property
    def fit(self) -> bool:
        """Whether the process lives, holds the checkpoint, and met no error that may have left its device
        unusable."""
        return self._loaded and not self._broken and self._process.poll() is None

    def last_words(self) -> str | None:
        """What the sampler last saw of the process, None where nobody watches it."""
        seen = self.sampler.so_far() if self.sampler else None
        return seen.last_words if seen else None

    def restart(self) -> None:
        """A new process with nothing loaded, for one that died or is of no more use."""
        self.close()
        self.last = None
        self._start()

    def _start(self) -> None:
        self._loaded = self._broken = False
        self._log_began = size_of(self._log)
        command = [sys.executable, "-P", "-m", "quantlab.measuring.worker", self._job]
        self._kills = memory_kills()
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=self._environment
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def open_device(self) -> dict[str, Any]:
        return self._ask(do="open_device")

    def load(self) -> dict[str, Any]:
        """Raises CellFailure where the checkpoint does not load here."""
        self.about = self._ask(do="load")
        self._loaded = True
        return self.about

    def clear(self) -> None:
        """Drop the last run's cache and begin to count peaks."""
        self._ask(do="clear")

    def prefill(self, work: GridPoint) -> dict[str, Any]:
        self.last = work
        return self._ask(do="prefill", batch=work.batch, length=work.length)

    def decode(self, work: GridPoint) -> dict[str, Any]:
        return self._ask(do="decode", tokens=work.decode)

    def warm_up(self, work: GridPoint) -> None:
        """Run the workload once where the last run was another one. Raises CellFailure."""
        self.revive()
        if self.last != work:
            self.prefill(work)
            self.decode(work)

    def _ask(self, **command: Any) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._signal("SIGCONT")
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise self._death()
        self._signal("SIGSTOP")
        reply: dict[str, Any] = json.loads(answer)
        if "usage" in reply:
            raise QuantlabError(reply["usage"])
        if "bug" in reply:
            self._broken = True  # an error of CUDA stays with its process
            raise CellFailure(
                "crashed", f"{reply['bug']} (traceback in {self._log.relative_to(self.cell.root)})"
            )
        if "failure" in reply:
            raise CellFailure(reply["failure"]["kind"], reply["failure"]["reason"])
        return reply

    def _signal(self, name: str) -> None:
        if self._stops:
            self._process.send_signal(signal.Signals[name])

    def _death(self) -> WorkerDied:
        code = self._process.wait()
        outside = ended_from_outside(code, self._kills, self.cell.root)
        if outside and code == -signal.SIGKILL and self._loaded and short_of_memory(self._kills):
            return WorkerDied(
                "out_of_memory", outside.reason.rpartition(";")[0]
            )  # a workload that is too large: no accident
        if outside:
            return WorkerDied(outside.kind, outside.reason)
        kind: FailureKind = "out_of_memory" if said_out_of_memory(self._log, self._log_began) else "crashed"
        return WorkerDied(
            kind, f"the process {ending(code)}; its output is in {self._log.relative_to(self.cell.root)}"
        )

    def close(self) -> None:
        """End the process; returns when it is gone and its memory with it."""
        self._signal("SIGCONT")
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
