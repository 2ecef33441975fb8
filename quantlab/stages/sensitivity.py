"""Find where a checkpoint's divergence comes from: swap one part at a time into the unquantized model.

Quantized layers run as dense layers dequantized once, so that what is swapped is the rounding of the weights
and nothing of a kernel; 8-bit activations (llama.cpp's on a CPU, bitsandbytes' LLM.int8) are not in it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from quantlab import engines
from quantlab.analysis import clustered
from quantlab.analysis.divergence import METRICS_VERSION, window_values
from quantlab.environments.versions import installed
from quantlab.errors import CellFailure
from quantlab.formats import GGUF, SAFETENSORS
from quantlab.hardware.device import Device
from quantlab.hardware.target import require_memory
from quantlab.optimize.swap import NOTHING, REST, WHOLE, Swap
from quantlab.progress import Progress, Step
from quantlab.records import STAGES, PartLoss, SensitivityRecord
from quantlab.reference.comparable import require_finite, require_same_vocabulary
from quantlab.reference.store import Reference, folder_of, require_sound
from quantlab.workspace.cell import Cell
from quantlab.workspace.checkpoint import Checkpoint
from quantlab.workspace.items import Items, key_of

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

__all__ = ["REST", "WHOLE", "Swap", "dense_model", "run"]


def run(
    cell: Cell, device: Device, progress: Progress, linears: bool = False, windows: int = 8
) -> SensitivityRecord:
    """Swap each block, or each linear layer. Raises CellFailure where the checkpoint cannot run as dense
    layers."""
    import torch

    checkpoint, reference = cell.checkpoint(), Reference(folder_of(cell.root, cell.model), device)
    reference.require_current(cell)
    require_same_vocabulary(checkpoint, cell.prepared.source().vocabulary, reference.info.vocabulary)
    token_ids = cell.prepared.token_ids("evaluation")[:windows]
    began = time.monotonic()
    swap = _load_both(cell, checkpoint, getattr(torch, reference.info.dtype), device, progress, linears)
    losses = _of_all_windows(cell, checkpoint, swap, reference, token_ids, device, progress, linears)
    estimates = {part: clustered.mean(np.array([[values[part]] for values in losses])) for part in losses[0]}
    nothing = estimates.pop(NOTHING).value
    return SensitivityRecord(
        model=cell.model,
        variant=cell.variant.slug,
        checkpoint_sha256=checkpoint.sha256,
        engine=engines.engine_for(SAFETENSORS),
        device=device.name,
        versions=installed(("torch", "transformers", "numpy")),
        notes=reference.notes + _floor(nothing),
        granularity="linear" if linears else "block",
        windows=len(losses),
        window_tokens=token_ids.shape[1],
        dtype=reference.info.dtype,
        whole=estimates.pop(WHOLE),
        parts=tuple(PartLoss(part=part, kl_divergence_nats=kl) for part, kl in estimates.items()),
        seconds=time.monotonic() - began,
        nothing_swapped_nats=nothing,
        reference_sha256=reference.sha256,
        reference_dtype=reference.info.dtype,
    )


def _of_all_windows(
    cell: Cell,
    checkpoint: Checkpoint,
    swap: Swap,
    reference: Reference,
    token_ids: NDArray[np.int64],
    device: Device,
    progress: Progress,
    linears: bool,
) -> list[dict[str, float]]:
    """Each window's divergences by part, in nats; windows of an interrupted run are read, not repeated."""
    import torch

    done = Items(cell.root, checkpoint.sha256, "sensitivity")
    settings = key_of(
        *(STAGES["sensitivity"].version, METRICS_VERSION, reference.sha256, reference.notes),
        *(linears, device.name, installed(("torch", "transformers"))),
    )
    what = f"{cell.variant.slug}: {len(swap.parts)} parts of {len(token_ids)} windows"
    losses: list[dict[str, float]] = []
    with progress.step(what, len(token_ids) * len(swap.parts)) as step:
        for i, ids in enumerate(token_ids):
            values = done.get(key_of(settings, i))
            if values:
                step.advance(len(swap.parts))
            else:
                values = _losses(swap, reference, i, torch.from_numpy(ids)[None], device, step)
                done.add({key_of(settings, i): values})
            losses.append(values)
    return losses


def _load_both(
    cell: Cell, checkpoint: Checkpoint, dtype: torch.dtype, device: Device, progress: Progress, linears: bool
) -> Swap:
    """Load the unquantized model and the checkpoint as dense layers. Raises CellFailure where they do not
    fit."""
    source = cell.prepared.source()
    size = dtype.itemsize * source.parameters
    require_memory(device, 2 * size, "the unquantized model and the dequantized one")
    with progress.step(f"{cell.variant.slug}: loading both models as dense layers"):
        plain = _plain(cell.prepared.origin, dtype, device, source.trust_remote_code)
        return Swap(plain, dense_model(checkpoint, dtype, device.places.first), linears)


def _losses(
    swap: Swap, reference: Reference, window: int, ids: torch.Tensor, device: Device, step: Step
) -> dict[str, float]:
    """The mean divergence in one window with each part swapped. `ids` has the shape (1, length)."""
    logits = reference.logits(window)
    require_sound(logits, window)
    losses = {}
    for part, other in swap.logits(ids.to(device.places.first)):
        require_finite(other, f"window {window + 1} of the evaluation text with {part} swapped")
        losses[part] = float(window_values(logits, other, ids[0].numpy()).kl.mean())
        step.advance(part != NOTHING)
    return losses


def _floor(nats: float) -> tuple[str, ...]:
    """What a reader must know where the unquantized model does not give its own reference back."""
    if not nats:
        return ()
    return (
        (
            f"With nothing swapped the unquantized model diverges by {nats:.2g} nats from its reference:"
            " parts below that cannot be told."
        ),
    )


def dense_model(checkpoint: Checkpoint, dtype: torch.dtype, device: str) -> Any:
    """The checkpoint as a transformers model of dense layers. Raises CellFailure for a format that has no
    such form."""
    from quantlab.engines._transformers.dense import _packing, load_dense
    from quantlab.formats.quantization import quantization_config
    from quantlab.models.loading import broken_checkpoint, load_model

    trust = checkpoint.manifest.trust_remote_code
    if checkpoint.manifest.format == GGUF:
        file = checkpoint.gguf()
        try:
            model = load_model(
                file.parent, False, broken_checkpoint, safetensors=False, gguf_file=file.name, dtype=dtype
            )
            return model.to(device).eval()
        except ValueError as error:
            raise CellFailure(
                "unsupported",
                f"transformers does not read this GGUF file: {' '.join(str(error).split())[:200]}",
            ) from error
    config = quantization_config(checkpoint.weights)
    if not config:
        return load_model(
            checkpoint.weights, trust, broken_checkpoint, dtype=dtype, device_map={"": device}
        ).eval()
    if config.get("load_in_4bit") or config.get("load_in_8bit"):
        packed = load_model(
            checkpoint.weights, trust, broken_checkpoint, dtype=dtype, device_map={"": device}
        )
        return packed.dequantize().to(dtype).eval()
    if not _packing(config):
        raise CellFailure(
            "unsupported",
            f"{config.get('quant_method')} at {config.get('bits')} bits is not read as dense layers",
        )
    return load_dense(checkpoint.weights, config, device, trust).to(dtype).eval()


def _plain(weights: Path, dtype: torch.dtype, device: Device, trust_remote_code: bool) -> Any:
    from quantlab.models.loading import load_model

    return load_model(weights, trust_remote_code, dtype=dtype, device_map={"": device.places.first}).eval()
