"""diverge: perplexity and KL divergence of one checkpoint against the reference, on the same token ids."""

from __future__ import annotations

from quantlab import engines
from quantlab.analysis.divergence import METRICS_VERSION, WindowSums, scored, summarize, window_sums
from quantlab.cell import Cell, require_memory
from quantlab.checkpoint import Checkpoint
from quantlab.device import Device
from quantlab.errors import QuantlabError
from quantlab.items import Items, key_of
from quantlab.progress import Progress
from quantlab.records import DivergenceRecord
from quantlab.stages.reference import Reference, folder_of
from quantlab.versions import installed


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
    require_memory(device, checkpoint.disk_bytes, "the checkpoint")
    dense = runs_dense(checkpoint, device)
    engine = engines.load(engines.engine_for(checkpoint.manifest.format)).open_checkpoint(checkpoint, device.device, dense)
    settings = key_of(
        METRICS_VERSION, engine.name, engine.dtype, dense, device.name, reference.info.model_dump(), installed(_libraries(engine.name))
    )
    done = Items(cell.root, checkpoint.sha256, "divergence")
    sums: list[WindowSums] = []
    with progress.step(f"{cell.variant.slug}: divergence from the reference", len(token_ids)) as step:
        for i, ids in enumerate(token_ids):
            key = key_of(settings, i)
            found = done.get(key)
            if found is None:
                found = list(window_sums(reference.logits(i), engine.logits(ids), ids))
                done.add({key: found})
            sums.append(WindowSums(*found))
            step.advance()
    engine.close()
    return _record(cell, checkpoint, engine, device, sums, dense)


def _libraries(engine: str) -> tuple[str, ...]:
    return (*engines.load(engine).REQUIRES, "numpy")


def _record(
    cell: Cell, checkpoint: Checkpoint, engine: engines.Engine, device: Device, sums: list[WindowSums], dense: bool
) -> DivergenceRecord:
    token_ids = cell.prepared.token_ids("evaluation")
    found = summarize(sums)
    return DivergenceRecord(
        model=cell.model,
        variant=cell.variant.slug,
        checkpoint_sha256=checkpoint.sha256,
        engine=engine.name,
        device=device.name,
        versions=installed(_libraries(engine.name)),
        windows=len(sums),
        window_tokens=token_ids.shape[1],
        scored_tokens=found.tokens,
        text_bytes=_scored_bytes(cell, checkpoint),
        dtype=engine.dtype,
        dense=dense,
        dense_check_nats=checkpoint.manifest.dense_check_nats if dense else None,
        perplexity=found.perplexity,
        reference_perplexity=found.reference_perplexity,
        kl_divergence_nats=found.kl,
        kl_divergence_token_standard_error=found.kl_token_standard_error,
        top1_agreement=found.top1_agreement,
        log_perplexity_ratio=found.log_perplexity_ratio,
    )


def _scored_bytes(cell: Cell, checkpoint: Checkpoint) -> int:
    """UTF-8 bytes of the scored tokens."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(cell.prepared.weights, trust_remote_code=checkpoint.manifest.trust_remote_code)
    token_ids = cell.prepared.token_ids("evaluation")
    rows = scored(token_ids.shape[1])
    return sum(len(str(tokenizer.decode(ids[1:][rows])).encode()) for ids in token_ids)
