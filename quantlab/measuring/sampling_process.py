"""Sample the memory of another process's tree and of the GPUs every 10 ms, in a process of its own.

`python -m quantlab.measuring.sampling_process FILE UUID...`. Commands come as JSON lines on standard input:
`pid` (whom to watch), `step` (what it does now), `glance` (once a second is enough), `look` (answer with one
full look). The file always holds everything seen so far, so that it also tells of a process that was killed,
this one included. It ends with its input. It imports neither torch nor quantlab's heavier modules: it takes
little beside the process that it watches."""

from __future__ import annotations

import itertools
import json
import os
import select
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from quantlab.hardware.driver import Gpus

INTERVAL_SECONDS = 0.01
GLANCE_SECONDS = 1.0
_SHARE = 0.1
"""Of the time that reading one costly quantity may take."""
_OWN_PEAKS = ("tree_pss_bytes", "tree_swap_bytes", "tree_vram_bytes", "used_vram_bytes")
"""Quantities whose peak is at a moment of its own."""


class _Costly:
    """A quantity that is read at most every `interval`, and less often where reading it takes long."""

    def __init__(self, interval: float) -> None:
        self.interval, self.due, self.times = interval, 0.0, list[float]()

    def ready(self, now: float) -> bool:
        return now >= self.due

    def took(self, began: float) -> None:
        now = time.monotonic()
        self.due = began + max(self.interval, (now - began) / _SHARE)
        self.times.append(began)


class _MedianGap:
    """The median of the gaps between looks, computed anew where there are a tenth more of them: every look
    would pay for all."""

    def __init__(self) -> None:
        self._known = 0
        self._value: float | None = None

    def of(self, times: list[float], final: bool) -> float | None:
        if final or len(times) > 1.1 * self._known:
            self._known, self._value = len(times), _median_gap(times)
        return self._value


class Watch:
    """All that was seen so far."""

    def __init__(self, gpus: Gpus) -> None:
        self.began, self.gpus = time.monotonic(), gpus
        self.pid: int | None = None
        self.step, self.glance = "before", False
        self.steps: dict[str, dict[str, Any]] = {}
        self.peak: dict[str, Any] = {}
        self.last: dict[str, Any] = {}
        self._pss, self._family = _Costly(INTERVAL_SECONDS), _Costly(0.1)
        self._pids: list[int] = []
        self._times: list[float] = []
        self._gap, self._pss_gap = _MedianGap(), _MedianGap()

    def look(self, full: bool = False) -> dict[str, Any]:
        """Look once; `full` reads the costly quantities whatever they take."""
        now = time.monotonic()
        if full or self._family.ready(now):
            self._pids = _tree(self.pid)
            self._family.took(now)
        pss = swap = None
        if full or self._pss.ready(time.monotonic()):
            began = time.monotonic()
            pss, swap = _pss_bytes(self._pids)
            self._pss.took(began)
        sample: dict[str, Any] = {
            "step": self.step,
            "seconds": now - self.began,
            "tree_rss_bytes": _rss_bytes(self._pids),
        }
        sample |= {"tree_pss_bytes": pss, "tree_swap_bytes": swap, "gpus": self.gpus.look(self._pids)}
        sample |= {
            "tree_vram_bytes": _sum(sample["gpus"], "tree_bytes"),
            "used_vram_bytes": _sum(sample["gpus"], "used_bytes"),
        }
        if not self.glance:
            self._times.append(now)
        if (
            sample["tree_rss_bytes"] or self.pid is None
        ):  # a tree that is gone holds nothing, and its last look stays
            kept = (
                {key: self.last[key] for key in ("tree_pss_bytes", "tree_swap_bytes")}
                if pss is None and self.last
                else {}
            )
            self.last = sample | kept
            if not self.glance:
                self.peak = _highest(self.peak, sample)
                self.steps[self.step] = _highest(self.steps.get(self.step, {}), sample)
        return sample

    def summary(self, final: bool = False) -> dict[str, Any]:
        """As `quantlab.records.measured.SampledMemory` has it, without the looks that the parent asked
        for."""
        steps = [step for name, step in self.steps.items() if name != "before"]
        return {
            "asked_interval_seconds": INTERVAL_SECONDS,
            "interval_seconds": self._gap.of(self._times, final),
            "pss_interval_seconds": self._pss_gap.of(self._pss.times, final),
            "samples": len(self._times),
            "peak": self.peak,
            "steps": steps,
            "last": self.last,
        }


def _highest(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The higher value of each quantity; step and time of the look with the most resident memory."""
    if not one:
        return other
    first = one if one["tree_rss_bytes"] >= other["tree_rss_bytes"] else other
    gpus = [
        a | _higher(a, b, "used_bytes", "tree_bytes") for a, b in zip(one["gpus"], other["gpus"], strict=True)
    ]
    return first | _higher(one, other, *_OWN_PEAKS) | {"gpus": gpus}


def _higher(one: dict[str, Any], other: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {
        key: max((use[key] for use in (one, other) if use[key] is not None), default=None) for key in keys
    }


def _sum(uses: list[dict[str, Any]], key: str) -> int | None:
    """Over the GPUs at this moment: of those that the driver tells, None where it tells none."""
    known = [use[key] for use in uses if use[key] is not None]
    return sum(known) if known else None


def _median_gap(times: list[float]) -> float | None:
    gaps = [after - before for before, after in itertools.pairwise(times)]
    return statistics.median(gaps) if gaps else None


def _tree(pid: int | None) -> list[int]:
    """The process and all that descend from it, those that are there."""
    try:
        root = psutil.Process(pid)
        return [pid, *(child.pid for child in root.children(recursive=True))] if pid else []
    except psutil.NoSuchProcess:
        return []


def _rss_bytes(pids: list[int]) -> int:
    total = 0
    for pid in pids:
        try:
            total += psutil.Process(pid).memory_info().rss
        except psutil.Error:
            continue
    return total


def _pss_bytes(pids: list[int]) -> tuple[int | None, int | None]:
    """Proportional sizes in memory and swapped out; None where the system tells none, or not of every
    process."""
    held: dict[str, list[int]] = {"Pss": [], "SwapPss": []}
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended since the tree was read
        except OSError:
            return None, None
        for line in text.splitlines():
            name, _, size = line.partition(":")
            if name in held:
                held[name].append(int(size.split()[0]) * 1024)
    pss, swap = (sum(sizes) if sizes else None for sizes in held.values())
    return pss, swap


def _obey(watch: Watch, line: str) -> None:
    """One command, answered when it is done; the step that ends is looked at once more before the next
    begins."""
    said = json.loads(line)
    if "step" in said and watch.pid is not None:
        watch.look(full=True)
    watch.pid = said.get("pid", watch.pid)
    watch.step, watch.glance = said.get("step", watch.step), said.get("glance", watch.glance)
    print(json.dumps(watch.look(full=True)) if said.get("look") else "", flush=True)


def _write(handle: int, watch: Watch, final: bool = False) -> None:
    """One line over the last one: the reader takes the first line."""
    data = (json.dumps(watch.summary(final)) + "\n").encode()
    os.pwrite(handle, data, 0)


def main(file: Path, uuids: list[str]) -> None:
    """Look until the input ends."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    watch = Watch(Gpus(uuids))
    pending, waiting = b"", True
    while waiting:
        watch.look()
        _write(handle, watch)
        interval = GLANCE_SECONDS if watch.glance else INTERVAL_SECONDS
        readable, _, _ = select.select([0], [], [], interval)
        if readable:
            chunk = os.read(0, 65536)
            waiting = bool(chunk)
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                _obey(watch, line.decode())
    _write(handle, watch, final=True)
    os.close(handle)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
