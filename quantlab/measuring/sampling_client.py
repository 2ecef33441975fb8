"""Control the sampling process from its parent: what to watch, the current step, and the result."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from pydantic import ValidationError

from quantlab.records.measured import Sample, SampledMemory

_READS, _READ_AGAIN_SECONDS = 5, 0.02


def sample_file(root: Path, model: str, variant: str) -> Path:
    """Where a cell's samples lie while it is measured, outside what DVC deletes."""
    return root / ".quantlab" / "sampling" / model / f"{variant}.json"


def read_samples(file: Path) -> SampledMemory | None:
    """What a sampling process wrote, also of a measurement that was killed; None where it saw nothing.

    The file may be written meanwhile: half a line fails to parse, and is read again.
    """
    for _ in range(_READS):
        try:
            return SampledMemory.model_validate_json(file.read_text(encoding="utf-8").partition("\n")[0])
        except FileNotFoundError:
            return None
        except (ValidationError, UnicodeDecodeError):
            time.sleep(_READ_AGAIN_SECONDS)
    return None


class SamplingClient:
    """A sampling process, for the length of a `with` block. It never stops a measurement: where it dies,
    samples end."""

    def __init__(self, file: Path, uuids: Sequence[str] = ()) -> None:
        self._file, self._uuids = file, uuids
        self._looks: dict[str, Sample | None] = {}

    def __enter__(self) -> SamplingClient:
        self._file.unlink(missing_ok=True)
        command = [
            sys.executable,
            "-P",
            "-m",
            "quantlab.measuring.sampling_process",
            str(self._file),
            *self._uuids,
        ]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._looks["before"] = self._look()
        return self

    def watch(self, pid: int, step: str) -> None:
        """Watch the tree of a process from now on."""
        self._tell(pid=pid, step=step)

    def step(self, step: str, glance: bool = False) -> None:
        """What the watched process does from now on; `glance`: once a second is enough."""
        self._tell(step=step, glance=glance)

    def keep(self, name: str) -> None:
        """Take one full look now and keep it under a name: `empty` or `loaded`."""
        self._looks[name] = self._look()

    def so_far(self) -> SampledMemory | None:
        """What was seen until now, None where nothing was."""
        return read_samples(self._file)

    def _look(self) -> Sample | None:
        answer = self._tell(look=True)
        return Sample.model_validate_json(answer) if answer else None

    def _tell(self, **command: Any) -> str:
        """Returns when the command was obeyed, so that what comes after it is not seen in the step before."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return ""
        return self._process.stdout.readline().strip()

    def result(self) -> SampledMemory | None:
        """End the sampling and return what was seen, None where nothing was."""
        if self._process.stdin and not self._process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
            self._process.wait()
        seen = read_samples(self._file)
        kept = {name: look for name, look in self._looks.items() if look is not None}
        return seen.model_copy(update=kept) if seen else None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.result()
        if self._process.stdout:
            self._process.stdout.close()
