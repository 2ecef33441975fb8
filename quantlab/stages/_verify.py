"""Check a checkpoint before it counts: load it from disk in a fresh process and compare it with the model in
memory."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from quantlab import methods
from quantlab.engines import dense_form
from quantlab.errors import CellFailure
from quantlab.formats import GGUF, SAFETENSORS, stored, unquantized
from quantlab.hardware.device import Device
from quantlab.hardware.memory import process_memory
from quantlab.methods import InMemory
from quantlab.methods._loss import mean_loss
from quantlab.progress import Progress
from quantlab.records import ExpertTokens, Unquantized
from quantlab.stages._float16 import explained
from quantlab.stages._reload import NotFinite, Reloaded, reload, reload_apart
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


class Made(NamedTuple):
    """What is known of the quantized model once it has left the memory."""

    loss: float | None
    """On the check text, in memory; None where the library holds no model that runs."""
    expected_layers: int | None
    layers: frozenset[str]
    expert_tokens: ExpertTokens | None
    notes: tuple[str, ...]
    peak_rss_bytes: int
    peak_device_bytes: int | None


class Check(NamedTuple):
    """What the check found."""

    stored: stored.Stored
    unquantized: Unquantized | None
    expected_layers: int | None
    expert_tokens: ExpertTokens | None
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


def made_of(cell: Cell, in_memory: InMemory, device: Device) -> Made:
    """Ask the quantized model in memory for its loss; the caller then lets it go."""
    loss = in_memory.loss(check_tokens(cell)) if in_memory.loss else None
    return Made(
        loss,
        in_memory.expected_layers,
        in_memory.layers,
        in_memory.expert_tokens,
        in_memory.notes,
        process_memory().peak_rss_bytes,
        _peak_device_bytes(device.places.first),
    )


def verify(
    cell: Cell, folder: Path, manifest: Manifest, made: Made, device: Device, progress: Progress
) -> Check:
    """Raise CellFailure("broken_checkpoint") where what was saved is not what was quantized."""
    token_ids = check_tokens(cell)
    # Lies beside its final place, so relative paths hold; a quantized cache is not part of what was saved.
    plain = {key: value for key, value in manifest.settings.items() if key != "cache"}
    checkpoint = Checkpoint(folder, manifest.model_copy(update={"settings": plain}))
    contents = _contents(cell, checkpoint)
    _require_layers(contents, made)
    with progress.step(f"{cell.variant.slug}: checking the saved checkpoint"):
        try:
            reloaded, form = _reload(cell, checkpoint, device.device, token_ids)
        except NotFinite as failure:
            raise explained(cell, device, failure, token_ids) from failure
        after = mean_loss(reloaded.real, token_ids)
        dense, nats, notes = _check_dense(reloaded, form, token_ids)
    tolerance = _require_same_loss(made.loss, after, len(token_ids))
    vocabulary = cell.prepared.source().vocabulary
    return Check(
        contents,
        _unquantized(checkpoint),
        made.expected_layers,
        made.expert_tokens,
        made.loss,
        after,
        tolerance,
        after > math.log(vocabulary),
        dense,
        nats,
        made.notes + ((reloaded.opening_note,) if reloaded.opening_note else ()) + notes,
        made.peak_rss_bytes,
        made.peak_device_bytes,
    )


def _require_layers(contents: stored.Stored, made: Made) -> None:
    """Raise CellFailure where other layers are quantized than were asked for, or one that chooses experts."""
    if made.expected_layers is None:
        return
    if contents.routers:
        raise CellFailure(
            "broken_checkpoint",
            f"routers are quantized ({len(contents.routers)}, such as {contents.routers[0]}): they choose the"
            " experts and stay in 16 bits in every method",
        )
    if contents.quantized_layers != made.expected_layers:
        lacking = sorted(made.layers - contents.names)
        raise CellFailure(
            "broken_checkpoint",
            f"{contents.quantized_layers} layers are quantized, {made.expected_layers} were asked for"
            + (f": the files lack {', '.join(lacking[:3])}" if lacking and contents.names else ""),
        )


def _require_same_loss(before: float | None, after: float, tokens: int) -> float:
    """The tolerance in nats. Raises CellFailure where the two losses differ by more."""
    tolerance = max(TOLERANCE_NATS, 0.01 * after)
    if before is not None and not math.isfinite(before):
        raise CellFailure(
            "broken_checkpoint",
            f"the quantized model in memory gives no finite loss on {tokens} tokens, before it was saved",
        )
    if before is not None and not abs(after - before) <= tolerance:
        raise CellFailure(
            "broken_checkpoint",
            f"the loss on {tokens} tokens is {before:.3f} nats in memory and {after:.3f} after"
            " reloading: what was saved is not what was quantized",
        )
    return tolerance


def _reload(
    cell: Cell, checkpoint: Checkpoint, device: str, token_ids: NDArray[np.int64]
) -> tuple[Reloaded, str | None]:
    """The reloaded checkpoint's logits, and the dense form that was tried beside the kernel, in words.

    A library that quantizes may replace classes of transformers in its process: the checkpoint is then loaded
    in a fresh one."""
    form = dense_form(checkpoint) if device == "cpu" else None
    quantized_here = methods.load(cell.variant.method).changes_weights and not cell.variant.external
    if quantized_here and checkpoint.manifest.format == SAFETENSORS:
        return reload_apart(checkpoint, device, token_ids, form is not None, cell.root), form
    return reload(checkpoint, device, token_ids, form is not None), form


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
    reloaded: Reloaded, form: str | None, token_ids: NDArray[np.int64]
) -> tuple[bool, float | None, tuple[str, ...]]:
    """Whether the checkpoint dequantized into dense layers gives what its real kernel gives (used on a CPU
    for quality, where some kernels are hundreds of times slower), and a note."""
    from quantlab.analysis.divergence import window_values

    if reloaded.dense is None:
        return False, None, ()
    nats = float(window_values(reloaded.real, reloaded.dense, token_ids).kl.mean())
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
