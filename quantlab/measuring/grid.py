"""Choose the workloads: the recipe's batch sizes and context depths, or the device's default ones."""

from __future__ import annotations

from quantlab.hardware.device import Device
from quantlab.measuring.worker_client import GridPoint
from quantlab.recipe import MeasureSpec

_GPU_BATCH, _GPU_CONTEXT = (1, 8), (0, 4096)
_CPU_BATCH, _CPU_CONTEXT = (1,), (0,)


def workloads(spec: MeasureSpec, device: Device) -> list[GridPoint]:
    """From the smallest context and batch up, so that what does not fit comes last."""
    gpu = bool(device.places.gpus)
    batches = spec.batch or (_GPU_BATCH if gpu else _CPU_BATCH)
    contexts = spec.context or (_GPU_CONTEXT if gpu else _CPU_CONTEXT)
    return [
        GridPoint(b, c, spec.prompt_tokens, spec.decode_tokens)
        for c in sorted(set(contexts))
        for b in sorted(set(batches))
    ]
