"""diverge: perplexity and KL divergence of one checkpoint against the reference, on the same token ids."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from quantlab import engines
from quantlab.analysis.divergence import METRICS_VERSION, WindowValues, scored, summarize, window_values
from quantlab.cell import Cell, require_memory
from quantlab.checkpoint import Checkpoint
from quantlab.device import Device
from quantlab.errors import CellFailure, QuantlabError
from quantlab.items import Items, key_of
from quantlab.progress import Progress
from quantlab.records import DivergenceRecord
from quantlab.stages.reference import Reference, folder_of
from quantlab.versions import installed

if TYPE_CHECKING:
    from numpy.typing import NDArray


def runs_dense(checkpoint: Checkpoint, device: Device) -> bool:
    """Whether quality is measured on layers dequantized once: on a CPU, where that was found to give the same."""
    return device.device == "cpu" and checkpoint.manifest.dense_verified


def run(cell: Cell, device: Device, progress: Progress) -> DivergenceRecord:
    """Compare the cell's checkpoint with the reference. Raises CellFailure where it cannot run here."""
    checkpoint = cell.checkpoint()
    reference = Reference(folder_of(cell.root, cell.model))
    token_ids = cell.prepared.token_ids("evaluation")
    if reference.info.evaluation_sha256 != cell.prepared.text().evaluation_sha256:
        raise QuantlabError(f"the reference of {cell.model} was computed on another text: run `quantlab reference` again")
    if reference.info.revision != cell.prepared.source().revision:
        raise QuantlabError(f"the reference of {cell.model} is of another revision of the model: run `quantlab reference` again")
    require_memory(device, checkpoint.disk_bytes, "the checkpoint")
    dense = runs_dense(checkpoint, device)
    engine = engines.load(engines.engine_for(checkpoint.manifest.format)).open_checkpoint(checkpoint, device.device, dense)
    settings = key_of(
        METRICS_VERSION, engine.name, engine.dtype, dense, device.name, reference.info.model_dump(), installed(_libraries(engine.name))
    )
    done = Items(cell.root, checkpoint.sha256, "divergence")
    values: list[WindowValues] = []
    with progress.step(f"{cell.variant.slug}: divergence from the reference", len(token_ids)) as step:
        for i, ids in enumerate(token_ids):
            key = key_of(settings, i)
            found = done.get(key)
            if found is None:
                theirs, ours = reference.logits(i), _finite(engine.logits(ids), i)
                if theirs.shape != ours.shape:
                    raise CellFailure(
                        "unsupported",
                        f"the vocabulary has {ours.shape[1]:,} tokens, the reference's {theirs.shape[1]:,}: they cannot be compared",
                    )
                found = [column.tolist() for column in window_values(theirs, ours, ids)]
                done.add({key: found})
            values.append(WindowValues(*map(np.asarray, found)))
            step.advance()
    engine.close()
    return _record(cell, checkpoint, engine, device, values, dense)


def _finite(logits: NDArray[np.float32], window: int) -> NDArray[np.float32]:
    """The logits themselves. Raises CellFailure where one is not finite, with the window."""
    if not np.isfinite(logits).all():
        raise CellFailure("broken_checkpoint", f"the logits of window {window + 1} of the evaluation text are not finite")
    return logits


def _libraries(engine: str) -> tuple[str, ...]:
    return (*engines.load(engine).REQUIRES, "numpy")


def _record(
    cell: Cell, checkpoint: Checkpoint, engine: engines.Engine, device: Device, values: list[WindowValues], dense: bool
) -> DivergenceRecord:
    token_ids = cell.prepared.token_ids("evaluation")
    found = summarize(values)
    text_bytes = _scored_bytes(cell, checkpoint)
    return DivergenceRecord(
        model=cell.model,
        variant=cell.variant.slug,
        checkpoint_sha256=checkpoint.sha256,
        engine=engine.name,
        device=device.name,
        versions=installed(_libraries(engine.name)),
        windows=len(values),
        window_tokens=token_ids.shape[1],
        scored_tokens=found.tokens,
        text_bytes=text_bytes,
        dtype=engine.dtype,
        dense=dense,
        dense_check_nats=checkpoint.manifest.dense_check_nats if dense else None,
        perplexity=found.perplexity,
        reference_perplexity=found.reference_perplexity,
        kl_divergence_nats=found.kl,
        kl_divergence_token_standard_error=found.kl_token_standard_error,
        kl_divergence_percentiles_nats=found.kl_percentiles,
        kl_divergence_max_nats=found.kl_max,
        top1_agreement=found.top1_agreement,
        top5_overlap=found.top5_overlap,
        delta_p=found.delta_p,
        delta_p_rms=found.delta_p_rms,
        log_perplexity_ratio=found.log_perplexity_ratio,
        bits_per_byte=math.log(found.perplexity.value) * found.tokens / (math.log(2) * text_bytes),
        by_entropy=found.by_entropy,
    )


def _scored_bytes(cell: Cell, checkpoint: Checkpoint) -> int:
    """UTF-8 bytes of the scored tokens."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(cell.prepared.weights, trust_remote_code=checkpoint.manifest.trust_remote_code)
    token_ids = cell.prepared.token_ids("evaluation")
    rows = scored(token_ids.shape[1])
    return sum(len(str(tokenizer.decode(ids[1:][rows])).encode()) for ids in token_ids)
