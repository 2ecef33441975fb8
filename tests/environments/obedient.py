"""Commands of a worker, for the tests: what it may do, and ways in which it ends."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

import numpy as np

from quantlab.errors import CellFailure


class Commands:
    """See `quantlab.apart.serving`."""

    def add(self, numbers: np.ndarray, more: float) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"sum": float(numbers.sum() + more)}, {"twice": numbers * 2}

    def say(self, text: str) -> None:
        os.write(1, f"{text} on standard output\n".encode())
        print(text, file=sys.stderr, flush=True)

    def where(self) -> dict[str, Any]:
        return {"executable": sys.executable, "path": sys.path, "environment": dict(os.environ)}

    def refuse(self) -> None:
        raise CellFailure("unsupported", "no such layer")

    def run_out_of_memory(self) -> None:
        raise MemoryError("cannot take 7 bytes")

    def stumble(self) -> None:
        raise ValueError("a fault of the library")

    def die(self, number: int) -> None:
        print("the last words of the library", file=sys.stderr, flush=True)
        os.kill(os.getpid(), number)
        signal.pause()

    def leave(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)
        os._exit(3)

    def sleep(self, seconds: float) -> None:
        print("waiting for a lock", file=sys.stderr, flush=True)
        time.sleep(seconds)

    def work(self, seconds: float) -> None:
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            pass
