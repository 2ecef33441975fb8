"""Measure the memory bandwidth twice, by a copy and by an addition, and hold both beside the data sheet."""

from __future__ import annotations

import time

from quantlab.catalogue.gpu import gpu_called
from quantlab.hardware.bandwidth import measure
from quantlab.records.verification import Outcome
from quantlab.verification.contract import Check, Context, judged, once

_APART = 3.0
"""How many times one may be of the other: an addition on a CPU computes, and a copy may leave the caches
alone."""
_ABOVE, _BELOW = 1.05, 0.4
"""Shares of the data sheet's figure that a measurement lies between."""
_REPEATS = 5


def run(context: Context) -> Outcome:
    """The product's own measurement and another."""
    copied = measure(context.device.places.first)
    added = added_bytes_per_second(context.device.places.first, copied.copied_bytes // 4)
    spec = gpu_called(context.device.name)
    quoted = spec.bandwidth_gb_per_second * 1e9 if spec else None
    return judge(copied.measured_bytes_per_second, added, quoted)


def added_bytes_per_second(place: str, numbers: int) -> float:
    """Of adding 1 to so many float32 numbers, read and written; the best of several."""
    import torch

    source = torch.ones(numbers, dtype=torch.float32, device=place)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(_REPEATS + 1):
        began = time.perf_counter()
        torch.add(source, 1, out=target)
        if place != "cpu":
            torch.cuda.synchronize(place)
        best = min(best, time.perf_counter() - began)
    return 2 * source.nbytes / best


def judge(copied: float, added: float, quoted: float | None) -> Outcome:
    """Fails where the two, or a GPU's and its data sheet, cannot both be true."""
    said = []
    if not 1 / _APART <= copied / added <= _APART:
        said.append(f"a copy moves {copied:.3g} bytes per second, an addition {added:.3g}")
    if quoted and not _BELOW * quoted <= copied <= _ABOVE * quoted:
        said.append(f"a copy moves {copied:.3g} bytes per second, the data sheet says {quoted:.3g}")
    return judged(
        said,
        {
            "copied_bytes_per_second": copied,
            "added_bytes_per_second": added,
            "quoted_bytes_per_second": quoted,
        },
    )


CHECK = Check(
    name="bandwidth",
    proves="the measured memory bandwidth is plausible: two ways of measuring it, and the data sheet",
    run=run,
    subjects=once(60),
    usual_seconds=15,
)
