"""measure: memory and speed of one checkpoint on the target device, in a process that does nothing else.

Included in a prefill: the forward pass of the whole prompt with the logits of its last token, from an empty cache. In
a decode: every further token, chosen greedily. Not included: tokenization, detokenization, sampling, a server.
"""

from __future__ import annotations

import importlib
import time
from typing import TYPE_CHECKING

from quantlab import engines
from quantlab.cell import Cell, require_memory
from quantlab.device import Device, process_memory, process_vram_bytes
from quantlab.errors import CellFailure
from quantlab.progress import Progress, Step
from quantlab.records import Failure, MeasureRecord, MemoryRecord, SpeedPoint, SpeedRecord
from quantlab.versions import installed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def run(cell: Cell, device: Device, progress: Progress) -> MeasureRecord:
    """Time the cell's checkpoint. Raises CellFailure where it cannot run here."""
    checkpoint = cell.checkpoint()
    require_memory(device, checkpoint.disk_bytes, "the checkpoint")
    name = engines.engine_for(checkpoint.manifest.format)
    module = engines.load(name)
    for library in module.imports(checkpoint):
        importlib.import_module(library)
    empty = process_memory().rss_bytes
    began = time.perf_counter()
    with progress.step(f"{cell.variant.slug}: loading"):
        engine = module.open_checkpoint(checkpoint, device.device)
    load_seconds, loaded = time.perf_counter() - began, process_memory().rss_bytes
    points, kv_cache = _points(cell, engine, progress)
    allocated, reserved, vram = _cuda_memory(device)
    memory = engine.memory()
    record = MeasureRecord(
        model=cell.model,
        variant=cell.variant.slug,
        checkpoint_sha256=checkpoint.sha256,
        engine=name,
        device=device.name,
        versions=installed(module.REQUIRES),
        memory=MemoryRecord(
            disk_bytes=checkpoint.disk_bytes,
            weights_bytes=memory.weights_bytes,
            kv_cache_bytes=kv_cache,
            empty_process_rss_bytes=empty,
            loaded_process_rss_bytes=loaded,
            peak_process_rss_bytes=process_memory().peak_rss_bytes,
            peak_allocated_bytes=allocated,
            peak_reserved_bytes=reserved,
            process_vram_bytes=vram,
        ),
        speed=SpeedRecord(
            kernel=engine.kernel, dtype=engine.dtype, threads=engine.threads, load_seconds=load_seconds, points=tuple(points)
        ),
    )
    engine.close()
    return record


def _points(cell: Cell, engine: engines.Engine, progress: Progress) -> tuple[list[SpeedPoint], int | None]:
    spec = cell.recipe.measure
    text = cell.prepared.token_ids("evaluation").ravel()
    points, kv_cache = [], None
    grid = [(batch, context) for context in spec.context for batch in spec.batch]
    with progress.step(f"{cell.variant.slug}: prefill and decode", len(grid) * (spec.repeats + 1)) as step:
        for batch, context in grid:
            point = SpeedPoint(batch=batch, context_tokens=context, prompt_tokens=spec.prompt_tokens, decode_tokens=spec.decode_tokens)
            try:
                points.append(_time(engine, point, text, spec.repeats, step))
                kv_cache = engine.memory().kv_cache_bytes
            except CellFailure as failure:
                points.append(point.model_copy(update={"failure": Failure.of(failure)}))
    return points, kv_cache


def _time(engine: engines.Engine, point: SpeedPoint, text: NDArray[np.int64], repeats: int, step: Step) -> SpeedPoint:
    """One warm-up, then the repeats, each from an empty cache."""
    import numpy as np

    length = point.context_tokens + point.prompt_tokens
    prompts = np.stack([np.resize(np.roll(text, -row * length), length) for row in range(point.batch)])
    prefill, decode = [], []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        engine.prefill(prompts)
        middle = time.perf_counter()
        engine.decode(point.decode_tokens)
        end = time.perf_counter()
        prefill.append(middle - began)
        decode.append(end - middle)
        step.advance()
    return point.model_copy(update={"prefill_seconds": tuple(prefill[1:]), "decode_seconds": tuple(decode[1:])})


def _cuda_memory(device: Device) -> tuple[int | None, int | None, int | None]:
    """Peak allocated, peak reserved, and the process's memory as the driver sees it; None on a CPU."""
    if not device.device.startswith("cuda"):
        return None, None, None
    import torch

    gpu = device.gpus[int(device.device.partition(":")[2])]
    return (
        int(torch.cuda.max_memory_allocated(device.device)),
        int(torch.cuda.max_memory_reserved(device.device)),
        process_vram_bytes(gpu.uuid),
    )
