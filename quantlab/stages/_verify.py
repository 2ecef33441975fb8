"""Check a checkpoint before it counts: load it afresh from disk and compare it with the model in memory."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from quantlab import engines
from quantlab.errors import CellFailure
from quantlab.formats import GGUF, SAFETENSORS, stored, unquantized
from quantlab.hardware.device import Device
from quantlab.hardware.memory import process_memory
from quantlab.methods import InMemory
from quantlab.methods._loss import mean_loss
from quantlab.progress import Progress
from quantlab.records import Unquantized
from quantlab.workspace.cell import Cell
from quantlab.workspace.checkpoint import Checkpoint, Manifest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CHECK_TOKENS = 256
TOLERANCE_NATS = 0.05
"""Kernels of one checkpoint differ by rounding (below 0.02 nats where seen); a broken save differs by whole
nats."""
DENSE_TOLERANCE_NATS = 0.005
"""Mean divergence of the dense layers from the real kernel: bfloat16 against float32 alone is about 0.001."""


class Check(NamedTuple):
    """What the check found."""

    stored: stored.Stored
    unquantized: Unquantized | None
    expected_layers: int | None
    loss_in_memory: float | None
    loss_reloaded: float
    tolerance: float
    collapsed: bool
    dense_verified: bool
    dense_nats: float | None
    notes: tuple[str, ...]
    quantize_peak_rss_bytes: int
    peak_device_bytes: int | None


def check_tokens(cell: Cell) -> NDArray[np.int64]:
    """The short text of the check: the beginning of the evaluation text's first window."""
    ids: NDArray[np.int64] = cell.prepared.token_ids("evaluation")[0][:CHECK_TOKENS]
    return ids


def verify(
    cell: Cell, folder: Path, manifest: Manifest, in_memory: InMemory, device: Device, progress: Progress
) -> Check:
    """Raise CellFailure("broken_checkpoint") where what was saved is not what was quantized."""
    token_ids = check_tokens(cell)
    peak_device = _peak_device_bytes(device.places.first)
    expected, before = in_memory.expected_layers, in_memory.loss(token_ids) if in_memory.loss else None
    peak, method_notes = process_memory().peak_rss_bytes, in_memory.notes
    del in_memory
    # Lies beside its final place, so relative paths hold; a quantized cache is not part of what was saved.
    plain = {key: value for key, value in manifest.settings.items() if key != "cache"}
    checkpoint = Checkpoint(folder, manifest.model_copy(update={"settings": plain}))
    contents = _contents(cell, checkpoint)
    _require_layers(contents, expected)
    with progress.step(f"{cell.variant.slug}: checking the saved checkpoint"):
        logits = _logits(checkpoint, device.device, token_ids)
        after = mean_loss(logits, token_ids)
        dense, nats, notes = _check_dense(checkpoint, device.device, token_ids, logits)
    tolerance = _require_same_loss(before, after, len(token_ids))
    vocabulary = cell.prepared.source().vocabulary
    return Check(
        contents,
        _unquantized(checkpoint),
        expected,
        before,
        after,
        tolerance,
        after > math.log(vocabulary),
        dense,
        nats,
        method_notes + notes,
        peak,
        peak_device,
    )


def _require_layers(contents: stored.Stored, expected: int | None) -> None:
    """Raise CellFailure where another number of layers is quantized than was asked for."""
    if expected is not None and contents.quantized_layers != expected:
        raise CellFailure(
            "broken_checkpoint",
            f"{contents.quantized_layers} layers are quantized, {expected} were asked for",
        )


def _require_same_loss(before: float | None, after: float, tokens: int) -> float:
    """The tolerance in nats. Raises CellFailure where the two losses differ by more."""
    tolerance = max(TOLERANCE_NATS, 0.01 * after)
    if before is not None and not abs(after - before) <= tolerance:
        raise CellFailure(
            "broken_checkpoint",
            f"the loss on {tokens} tokens is {before:.3f} nats in memory and {after:.3f} after"
            " reloading: what was saved is not what was quantized",
        )
    return tolerance


def _logits(
    checkpoint: Checkpoint, device: str, token_ids: NDArray[np.int64], dense: bool = False
) -> NDArray[np.float32]:
    import numpy as np

    engine = engines.load(engines.engine_for(checkpoint.manifest.format)).open_checkpoint(
        checkpoint, device, dense
    )
    try:
        logits = engine.logits(token_ids)
    finally:
        engine.close()
    if not np.isfinite(logits).all():
        raise CellFailure("broken_checkpoint", "the reloaded checkpoint gives logits that are not finite")
    return logits


def _contents(cell: Cell, checkpoint: Checkpoint) -> stored.Stored:
    if checkpoint.manifest.format == GGUF:
        return stored.of_gguf(checkpoint.gguf())
    return stored.of_safetensors(
        stored.safetensors(checkpoint.weights), stored.safetensors(cell.prepared.origin)
    )


def _unquantized(checkpoint: Checkpoint) -> Unquantized | None:
    """What the checkpoint left in 16 or 32 bits; None where the model's own weights were not counted."""
    if not checkpoint.manifest.parameters:
        return None
    tensors = (
        unquantized.tensors_of_gguf(checkpoint.gguf())
        if checkpoint.manifest.format == GGUF
        else unquantized.tensors_of(checkpoint.weights)
    )
    return Unquantized(
        weights=checkpoint.manifest.parameters, by_kind=dict(unquantized.weights_left(tensors))
    )


def _check_dense(
    checkpoint: Checkpoint, device: str, token_ids: NDArray[np.int64], real: NDArray[np.float32]
) -> tuple[bool, float | None, tuple[str, ...]]:
    """Whether the checkpoint dequantized into dense layers gives what its real kernel gives (used on a CPU
    only)."""
    from quantlab.analysis.divergence import window_values
    from quantlab.engines._transformers import dense as _dense

    form = _dense.form_of(checkpoint.weights) if checkpoint.manifest.format == SAFETENSORS else None
    if device != "cpu" or form is None:
        return False, None, ()
    values = window_values(real, _logits(checkpoint, device, token_ids, dense=True), token_ids)
    nats = float(values.kl.mean())
    if nats > DENSE_TOLERANCE_NATS:
        return (
            False,
            nats,
            (f"Quality was measured with the real kernel: {form} it differs by {nats:.2g} nats.",),
        )
    note = (
        f"Quality was measured {form}, which diverges from the real kernel by less than"
        f" {DENSE_TOLERANCE_NATS} nats on the check text."
    )
    return True, nats, (note,)


def _peak_device_bytes(device: str) -> int | None:
    if not device.startswith("cuda"):
        return None
    import torch

    return int(torch.cuda.max_memory_allocated(device))
