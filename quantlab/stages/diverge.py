"""Measure perplexity and KL divergence of one checkpoint against the reference, on the same token ids."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from quantlab import engines
from quantlab.analysis.divergence import (
    METRICS_VERSION,
    WindowValues,
    is_finite,
    scored,
    summarize_columns,
    window_values,
)
from quantlab.environments.versions import installed
from quantlab.errors import CellFailure
from quantlab.hardware.device import Device
from quantlab.hardware.target import require_memory
from quantlab.methods._float16 import too_large
from quantlab.models.activations import FLOAT16
from quantlab.progress import Progress, Step
from quantlab.records import STAGES, DivergenceRecord
from quantlab.reference.comparable import other_vocabulary, require_finite, require_same_vocabulary
from quantlab.reference.store import Reference, folder_of, require_sound
from quantlab.stages._nearest import compare_with_nearest
from quantlab.stages._routing import RoutedWindows
from quantlab.workspace.cell import Cell
from quantlab.workspace.checkpoint import Checkpoint
from quantlab.workspace.items import key_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def run(cell: Cell, device: Device, progress: Progress) -> DivergenceRecord:
    """Compare the cell's checkpoint with the reference. Raises CellFailure where it cannot run here."""
    checkpoint = cell.checkpoint()
    cell.prepared.require_unchanged(weights=False)  # its tokenizer counts the text's bytes
    module = engines.load(engines.engine_or_usual(checkpoint.manifest.format, cell.recipe.engine))
    reference = Reference(folder_of(cell.root, cell.model), None if module.reserves_gpu else device)
    reference.require_current(cell)
    require_same_vocabulary(checkpoint, cell.prepared.source().vocabulary, reference.info.vocabulary)
    token_ids = cell.prepared.token_ids("evaluation")
    require_memory(device, checkpoint.disk_bytes, "the checkpoint")
    dense = engines.runs_dense(checkpoint, device)
    engine = module.open_checkpoint(checkpoint, device.device, dense, demand=_demand(token_ids.shape[1]))
    _require_range(cell, device, engine, reference)
    settings = key_of(
        *(
            STAGES["diverge"].version,
            METRICS_VERSION,
            engine.name,
            engine.dtype,
            dense,
            device.name,
            reference.sha256,
        ),
        *(reference.notes, _versions(engine.name, device)),
    )
    windows = RoutedWindows(cell, checkpoint, settings, reference, engine)
    with progress.step(f"{cell.variant.slug}: divergence from the reference", len(token_ids)) as step:
        compare(reference.logits, windows.logits, token_ids, windows, step)
    engine.close()
    values = WindowValues(*windows.divergences.read())
    nearest, why_none = compare_with_nearest(cell, checkpoint, reference, device, values.kl, progress)
    record = _record(cell, checkpoint, reference, engine, device, token_ids, values, dense)
    more: dict[str, Any] = {"round_to_nearest": nearest, "round_to_nearest_reason": why_none}
    more |= {"routing_changes": windows.changes(), "routing_changes_reason": windows.reason}
    return record.model_copy(update=more)


def _require_range(cell: Cell, device: Device, engine: engines.OpenCheckpoint, reference: Reference) -> None:
    """Raise CellFailure where an engine computes in float16 and the unquantized model's activations are more
    than that holds."""
    if not engine.dtype.startswith(FLOAT16) or reference.largest_activation.fits_float16:
        return
    failure = too_large(reference.largest_activation, cell.variant.method, cell.variant.bits, device.device)
    engine.close()
    raise failure


class Windows(Protocol):
    """Where finished windows are kept."""

    def has(self, window: int) -> bool: ...

    def put(self, window: int, values: Sequence[NDArray[Any]]) -> None: ...


def _demand(window: int) -> engines.Demand:
    """The log-probabilities of one window, and a token after it: some engines give the last row with that."""
    return engines.Demand(tokens=window + 1, scored_tokens=window)


def compare(
    reference: Callable[[int], NDArray[np.float32]],
    variant: Callable[[NDArray[np.int64]], NDArray[np.float32]],
    token_ids: NDArray[np.int64],
    done: Windows,
    step: Step,
) -> None:
    """Fill the windows that are not done: `reference` gives a window's logits by its number, `variant` by its
    token ids.

    Raises CellFailure where the variant's logits are not finite or of another vocabulary, QuantlabError where
    the reference's are not finite; both name the window."""
    for i, ids in enumerate(token_ids):
        if not done.has(i):
            reference_logits = reference(i)
            require_sound(reference_logits, i)
            variant_logits = require_finite(variant(ids), f"window {i + 1} of the evaluation text")
            if reference_logits.shape[1] != variant_logits.shape[1]:
                raise other_vocabulary(variant_logits.shape[1], reference_logits.shape[1])
            values = window_values(reference_logits, variant_logits, ids)
            if not all(is_finite(column) for column in values):
                raise CellFailure(
                    "broken_checkpoint",
                    f"the divergence in window {i + 1} of the evaluation text is not finite",
                )
            done.put(i, values)
        step.advance()


def _versions(engine: str, device: Device) -> dict[str, str]:
    return engines.load(engine).versions(device.device) | installed(("numpy",))


def _record(
    cell: Cell,
    checkpoint: Checkpoint,
    reference: Reference,
    engine: engines.OpenCheckpoint,
    device: Device,
    token_ids: NDArray[np.int64],
    values: WindowValues,
    dense: bool,
) -> DivergenceRecord:
    summary = summarize_columns(values)
    text_bytes = _scored_bytes(cell, checkpoint, token_ids)
    return DivergenceRecord(
        model=cell.model,
        variant=cell.variant.slug,
        checkpoint_sha256=checkpoint.sha256,
        engine=engine.name,
        device=device.name,
        versions=_versions(engine.name, device),
        notes=reference.notes,
        windows=len(token_ids),
        window_tokens=token_ids.shape[1],
        scored_tokens=summary.tokens,
        text_bytes=text_bytes,
        dtype=engine.dtype,
        dense=dense,
        dense_check_nats=checkpoint.manifest.dense_check_nats if dense else None,
        perplexity=summary.perplexity,
        reference_perplexity=summary.reference_perplexity,
        kl_divergence_nats=summary.kl,
        kl_divergence_token_standard_error=summary.kl_token_standard_error,
        kl_divergence_percentiles_nats=summary.kl_percentiles,
        kl_divergence_max_nats=summary.kl_max,
        top1_agreement=summary.top1_agreement,
        top5_overlap=summary.top5_overlap,
        delta_p=summary.delta_p,
        delta_p_rms=summary.delta_p_rms,
        log_perplexity_ratio=summary.log_perplexity_ratio,
        bits_per_byte=math.log(summary.perplexity.value) * summary.tokens / (math.log(2) * text_bytes),
        by_entropy=summary.by_entropy,
        reference_sha256=reference.sha256,
        reference_dtype=reference.info.dtype,
    )


def _scored_bytes(cell: Cell, checkpoint: Checkpoint, token_ids: NDArray[np.int64]) -> int:
    """UTF-8 bytes of the scored tokens."""
    from quantlab.models.loading import load_tokenizer

    tokenizer = load_tokenizer(cell.prepared.origin, checkpoint.manifest.trust_remote_code)
    rows = scored(token_ids.shape[1])
    return sum(len(str(tokenizer.decode(ids[1:][rows])).encode()) for ids in token_ids)
