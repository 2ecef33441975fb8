"""Count the processors that this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

from quantlab.container import ROOT, processor_quota

THREADS = "OMP_NUM_THREADS"
"""By which OpenMP's libraries (torch among them) start fewer threads than there are processors."""


def cores(root: Path = ROOT) -> int:
    """Count the processors that this process may use: those of its mask, and no more than a container's
    quota.

    Of a quota of 2.5 it is 2: a third thread would be stopped half of the time, and the others wait for it.
    """
    quota = processor_quota(root)
    return _mask() if quota is None else max(min(_mask(), math.floor(quota)), 1)


def limit_threads() -> None:
    """Let OpenMP's libraries start no more threads than a container's quota lets run, unless the user says
    how many; they know the mask alone."""
    if cores() < _mask():
        os.environ.setdefault(THREADS, str(cores()))


def _mask() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
