"""Hold an engine in a child process while it is measured: `python -m quantlab.measuring.worker JOB`.

It obeys one command per line of standard input and answers each with a line of JSON. The clock is in this
process, around the engine's own calls, so that pipes are not timed; memory is read from outside
(`quantlab.measuring.sampling_process`)."""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from quantlab import engines, methods
from quantlab.errors import QuantlabError
from quantlab.hardware.device import parse_places
from quantlab.hardware.memory import process_memory
from quantlab.outside import as_failure
from quantlab.processes import end_with_parent
from quantlab.progress import noise_to
from quantlab.workspace.cell import Cell


class WorkerCommands:
    """A cell's checkpoint in its engine, and what may be asked of it: every public method is a command."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._cell = Cell(Path(job["root"]), job["model"], job["variant"])
        self._device: str = job["device"]
        self._checkpoint = self._cell.checkpoint()
        self._name: str = job["engine"]
        self._module = engines.load(self._name)
        self._engine: engines.OpenCheckpoint | None = None
        self._demand = engines.Demand(tokens=job["tokens"], sequences=job["sequences"])
        self._gpus = [f"cuda:{n}" for n in parse_places(self._device).gpus]

    def open_device(self) -> dict[str, Any]:
        """Import the engine's libraries and open the device, with nothing loaded."""
        for library in (*self._module.imports(self._checkpoint), *self._loaded_by()):
            importlib.import_module(library)
        theirs = self._module.open_device(self._gpus)
        return {"rss_bytes": process_memory().rss_bytes + theirs.now}

    def _loaded_by(self) -> tuple[str, ...]:
        """Modules of the checkpoint's method that the engine imports here as it loads."""
        name = self._checkpoint.manifest.method
        here = name in methods.names() and not self._module.apart
        return methods.load(name).loaded_by if here else ()

    def load(self) -> dict[str, Any]:
        """Load the checkpoint."""
        began = time.perf_counter()
        engine = self._engine = self._module.open_checkpoint(
            self._checkpoint, self._device, demand=self._demand
        )
        seconds, memory = time.perf_counter() - began, engine.memory()
        about = {
            "kernel": engine.kernel,
            "dtype": engine.dtype,
            "threads": engine.threads,
            "cache_dtype": engine.cache_dtype,
        }
        return about | {
            "seconds": seconds,
            "context_tokens": engine.context_tokens,
            "reads": engine.weight_reads()._asdict(),
            "weights_bytes": memory.weights_bytes,
            "weights_reason": memory.weights_reason,
            "by_device": memory.by_device,
            "parallel": engine.parallel,
            "rss_bytes": process_memory().rss_bytes + engine.resident().now,
        }

    def clear(self) -> dict[str, Any]:
        """Drop the last run's cache, give its memory back, and only then begin to count peaks anew."""
        if self._engine is not None:
            self._engine.drop_cache()
            self._engine.reset_peaks()
        return {}

    def prefill(self, batch: int, length: int) -> dict[str, Any]:
        """Time one prefill of (batch, length) tokens of the evaluation text."""
        import numpy as np

        assert self._engine is not None
        text = self._cell.prepared.token_ids("evaluation").ravel()
        prompts = np.stack([np.resize(np.roll(text, -row * length), length) for row in range(batch)])
        began = time.perf_counter()
        self._engine.prefill(prompts)
        return {"seconds": time.perf_counter() - began}

    def decode(self, tokens: int) -> dict[str, Any]:
        """Time the decode after a prefill, and tell what the cache holds at its end."""
        assert self._engine is not None
        began = time.perf_counter()
        self._engine.decode(tokens)
        seconds, memory = time.perf_counter() - began, self._engine.memory()
        held = {"kv_cache_bytes": memory.kv_cache_bytes, "state_bytes": memory.state_bytes}
        held |= {f"peak_{kind}": size for kind, size in self._engine.peaks()._asdict().items()}
        peak = process_memory().peak_rss_bytes + self._engine.resident().peak
        return {"seconds": seconds, "peak_rss_bytes": peak} | held


def _answer(commands: WorkerCommands, line: str) -> dict[str, Any]:
    command: dict[str, Any] = json.loads(line)
    try:
        answer: dict[str, Any] = getattr(commands, command.pop("do"))(**command)
    except QuantlabError as error:
        return {"usage": str(error)}
    except (
        Exception
    ) as error:  # a library may raise anything; what is not expected keeps its traceback in the log
        traceback.print_exc()
        failure = as_failure(error)
        if failure is None:
            return {"bug": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        return {"failure": {"kind": failure.kind, "reason": failure.reason}}
    return answer


def main(job: dict[str, Any]) -> None:
    """Obey until the input ends."""
    # a parent that was killed in the middle of a command must not leave a loaded model behind
    end_with_parent()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    with noise_to(Path(job["log"]), quiet=True):
        commands = WorkerCommands(job)
        for line in sys.stdin:
            print(json.dumps(_answer(commands, line)), file=answers)
    os._exit(0)  # a library's threads must not keep a process that has nothing left to do


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
