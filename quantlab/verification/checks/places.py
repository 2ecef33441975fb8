"""Lay one model over a GPU and the machine's memory, and compare it with the model on the GPU alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantlab import engines
from quantlab.analysis.divergence import window_values
from quantlab.hardware.memory import free_vram_bytes
from quantlab.names import BASELINE
from quantlab.numbers import significant
from quantlab.records.verification import Outcome
from quantlab.verification.bench import Bench
from quantlab.verification.contract import Check, Context, Subject, judged, no_gpu
from quantlab.verification.models import WIDE

_SAME_NATS = 1e-3
_HALF, _MORE_BYTES = 0.5, 2**28
"""Of the model's bytes that the GPU has room for, and bytes for what CUDA's libraries take beside them."""


def run(context: Context) -> Outcome:
    """Fill the GPU so far that half of the model fits, and load it over both."""
    import torch

    bench = Bench(context.root, context.device, WIDE)
    bench.quantized(BASELINE)
    checkpoint = bench.cell(BASELINE).checkpoint()
    engine = engines.load(engines.engine_for(checkpoint.manifest.format))
    ids = bench.cell(BASELINE).prepared.token_ids("evaluation")[0]
    gpu = context.device.places.gpus[0]
    alone = engine.open_checkpoint(checkpoint, f"cuda:{gpu}")
    whole = alone.logits(ids)
    alone.close()
    free = free_vram_bytes((gpu,))[gpu]
    filled = max(free - int(_HALF * checkpoint.disk_bytes) - _MORE_BYTES, 0)
    ballast = torch.empty(filled, dtype=torch.uint8, device=f"cuda:{gpu}")
    both = engine.open_checkpoint(checkpoint, f"cuda:{gpu},cpu")
    split = both.logits(ids)
    by_device = both.memory().by_device
    both.close()
    del ballast
    return judge(by_device, f"cuda:{gpu}", float(window_values(whole, split, ids).kl.mean()))


def judge(by_device: Mapping[str, int], gpu: str, nats: Any) -> Outcome:
    """Fails where one place holds everything, or the logits are others."""
    said = [f"nothing lies on {place}" for place in (gpu, "cpu") if not by_device.get(place)]
    if not nats <= _SAME_NATS:
        said.append(f"the split model diverges by {significant(nats)} nats from the one on the GPU alone")
    figures = {
        "on_gpu_bytes": by_device.get(gpu, 0),
        "on_cpu_bytes": by_device.get("cpu", 0),
        "divergence_nats": nats,
    }
    return judged(said, figures)


CHECK = Check(
    name="places",
    proves="a model laid over a GPU and the machine's memory computes what it does on the GPU alone",
    run=run,
    subjects=lambda device: [Subject("", 190, no_gpu(device))],
    usual_seconds=40,
)
