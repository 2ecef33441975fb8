"""Quantize with `--device cpu` on a machine with a GPU, and watch that the GPU is left alone."""

from __future__ import annotations

import os
from collections.abc import Sequence

from quantlab import methods
from quantlab.environments.install import missing
from quantlab.hardware.device import Device, find
from quantlab.measuring.sampling_client import SamplingClient
from quantlab.names import Variant
from quantlab.records.measured import SampledMemory
from quantlab.records.verification import Outcome
from quantlab.stages.isolation import environment_of
from quantlab.verification.bench import Bench
from quantlab.verification.contract import Check, Context, Subject, judged, lacking, no_gpu
from quantlab.verification.models import NARROW

_RANK = 150
_CONTEXT_BYTES = 64 * 2**20
"""Less than CUDA takes for opening a GPU with nothing on it."""


def run(context: Context) -> Outcome:
    """The stage as a user's `--device cpu` runs it, seen by the driver."""
    method = methods.load(context.subject)
    slug = Variant(method.name, 4 if 4 in method.bits else min(method.bits)).slug
    bench = Bench(context.root, find("cpu"), NARROW, label="-on-cpu")
    cell = bench.cell(slug)
    file = context.root / ".quantlab" / "sampling" / f"{slug}.json"
    with SamplingClient(file, [gpu.uuid for gpu in context.device.gpus]) as sampler:
        sampler.watch(os.getpid(), "quantizing on the CPU")
        bench.quantized(slug)
        seen = sampler.result()
    return judge(seen, environment_of(cell, "quantize", "cpu").get("CUDA_VISIBLE_DEVICES"))


def judge(seen: SampledMemory | None, visible: str | None) -> Outcome:
    """Fails where the process held anything on a GPU; where the driver names no processes, where the GPU
    filled meanwhile or the process could see one."""
    held = [gpu.tree_bytes for gpu in seen.peak.gpus if gpu.tree_bytes] if seen else []
    change = seen.device_change_bytes if seen else None
    said = []
    if held:
        said.append(f"the process held {sum(held):,} bytes on a GPU")
    elif visible != "" and (change is None or change > _CONTEXT_BYTES):
        said.append(
            "the process may open a GPU (CUDA_VISIBLE_DEVICES is not empty), and one filled meanwhile"
        )
    shown = "empty" if visible == "" else "not set" if visible is None else "not empty"
    return judged(
        said,
        {"held_on_gpu_bytes": sum(held), "device_change_bytes": change},
        {"the process's CUDA_VISIBLE_DEVICES": shown},
    )


def subjects(device: Device) -> Sequence[Subject]:
    """Every method that quantizes."""
    quantizing = [name for name in methods.names() if methods.load(name).bits]
    chosen = [name for name in quantizing if methods.load(name).changes_weights]
    return [
        Subject(name, _RANK + place, no_gpu(device) or lacking(missing(methods.load(name).requires)))
        for place, name in enumerate(chosen)
    ]


CHECK = Check(
    name="cpu_only",
    proves="`--device cpu` leaves the GPU alone",
    run=run,
    subjects=subjects,
    usual_seconds=30,
)
