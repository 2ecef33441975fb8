"""Read the energy counter and the clocks around two seconds of work, and hold them beside the power limit."""

from __future__ import annotations

import time
from typing import NamedTuple

from quantlab.hardware.condition import conditions
from quantlab.hardware.energy import meter
from quantlab.records.measured import Conditions
from quantlab.records.verification import Outcome
from quantlab.verification.contract import Check, Context, judged, not_applicable, once

_SECONDS, _SIZE = 2.0, 2048
_ABOVE_LIMIT = 1.15
"""The driver holds the mean power at the limit; short peaks and the counter's steps are above it."""
_APART = 2.0
"""How many times the counter's power may be of the power that the driver shows meanwhile."""


class Worked(NamedTuple):
    """What the counter and the driver told of a while of work."""

    joules: float
    seconds: float
    during: Conditions


def run(context: Context) -> Outcome:
    """Multiply matrices while the counter runs."""
    counter = meter(context.device)
    if not counter.counters:
        return not_applicable(counter.reason or "there is no energy counter")
    before, began = counter.read(), time.perf_counter()
    _work(context.device.places.first, _SECONDS)
    during = conditions(context.device)  # while it is still warm: an idle GPU lowers its clocks
    joules, seconds = counter.used(before, counter.read()), time.perf_counter() - began
    return judge(Worked(joules or 0.0, seconds, during))


def _work(place: str, seconds: float) -> None:
    import torch

    matrix = torch.randn(_SIZE, _SIZE, device=place)
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends:
        for _ in range(10):
            product = matrix @ matrix
        product.sum().item()  # waits for the device


def judge(worked: Worked) -> Outcome:
    """Fails where the counter stands still or tells more than the device may take, or no clocks are told."""
    watts = worked.joules / worked.seconds
    gpu = worked.during.gpus[0] if worked.during.gpus else None
    said = [] if watts > 0 else ["the energy counter did not move"]
    if gpu is not None:
        if gpu.sm_clock_mhz is None or gpu.memory_clock_mhz is None:
            said.append("the driver told no clocks")
        if gpu.power_limit_watts and watts > _ABOVE_LIMIT * gpu.power_limit_watts:
            said.append(f"the counter gives {watts:.0f} W, the limit is {gpu.power_limit_watts:.0f} W")
        if gpu.power_watts and watts > 0 and not 1 / _APART <= watts / gpu.power_watts <= _APART:
            said.append(f"the counter gives {watts:.0f} W, the driver shows {gpu.power_watts:.0f} W")
    figures = {
        "counted_joules": worked.joules,
        "work_seconds": worked.seconds,
        "mean_watts": watts,
        "cpu_clock_mhz": worked.during.cpu_mhz,
        "sm_clock_mhz": gpu.sm_clock_mhz if gpu else None,
        "memory_clock_mhz": gpu.memory_clock_mhz if gpu else None,
        "power_limit_watts": gpu.power_limit_watts if gpu else None,
        "temperature_celsius": gpu.temperature_celsius if gpu else None,
    }
    held = ", ".join(gpu.throttle_reasons) if gpu else ""
    return judged(said, figures, {"clocks held back by": held} if held else {})


CHECK = Check(
    name="energy",
    proves="the energy counter and the clocks are told, and agree with the power limit",
    run=run,
    subjects=once(65),
    usual_seconds=15,
)
