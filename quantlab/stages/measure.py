"""Measure memory and speed of one checkpoint on the target device.

The engine runs in a worker process, which does nothing else; a sampling process looks at it from outside.
First every workload runs once, alone, for memory; then the timed repeats, in turn with the 16-bit variant of
the same engine.

Included in a prefill: the forward pass of the whole prompt with the logits of its last token, from an empty
cache. In a decode: every further token, chosen greedily. Not included: tokenization, detokenization,
sampling, a server."""

from __future__ import annotations

import os
from typing import Any

from quantlab import engines
from quantlab.errors import CellFailure
from quantlab.hardware.condition import load_average
from quantlab.hardware.device import Device
from quantlab.hardware.energy import Meter, meter
from quantlab.hardware.target import require_memory
from quantlab.measuring.grid import workloads
from quantlab.measuring.memory import Held, hold, open_and_load
from quantlab.measuring.points import Ceilings, ceilings_of, points
from quantlab.measuring.sampling_client import SamplingClient, read_samples, sample_file
from quantlab.measuring.speed import LEAST_SECONDS
from quantlab.measuring.timing import Timed, time_all
from quantlab.measuring.worker_client import Worker, WorkerDied
from quantlab.progress import Progress
from quantlab.records import Failure, MeasureRecord, MemoryRecord, SpeedRecord
from quantlab.records.measured import SampledMemory
from quantlab.workspace.cell import Cell
from quantlab.workspace.checkpoint import Checkpoint


def run(cell: Cell, device: Device, progress: Progress) -> MeasureRecord:
    """Measure the cell's checkpoint. What kept it from loading is in the record. Raises CellFailure,
    QuantlabError."""
    checkpoint, load = cell.checkpoint(), load_average()
    require_memory(device, checkpoint.disk_bytes, "the checkpoint")
    name = engines.engine_or_usual(checkpoint.manifest.format, cell.recipe.engine)
    base = MeasureRecord(
        model=cell.model,
        variant=cell.variant.slug,
        checkpoint_sha256=checkpoint.sha256,
        engine=name,
        device=device.name,
        versions=engines.load(name).versions(device.device),
    )
    ceilings, works, energy = ceilings_of(cell, device), workloads(cell.recipe.measure, device), meter(device)
    file = sample_file(cell.root, cell.model, cell.variant.slug)
    longest, most = max(work.tokens for work in works), max(work.batch for work in works)
    with (
        SamplingClient(file, [gpu.uuid for gpu in device.used_gpus]) as sampler,
        Worker(cell, name, device.device, longest, most) as worker,
    ):
        try:
            with progress.step(f"{cell.variant.slug}: loading"):
                empty = open_and_load(worker, sampler)
            with progress.step(f"{cell.variant.slug}: every workload once, for memory", len(works)) as step:
                held = hold(worker, sampler, works, step)
        except CellFailure as error:
            return _died(base, error, sampler.result())
        sampler.step("timed repeats", glance=True)
        worker.sampler = sampler
        timed = time_all(cell, device, worker, held, read_samples(file), energy, progress, load)
        seen, about = sampler.result(), worker.about
    speed = _speed(held, timed, ceilings, energy, about, cell.recipe.measure.price_per_device_hour)
    # the load average is the machine's, also in a container that may use few of its processors
    notes = (*timed.notes(os.cpu_count() or device.cores), *_notes(device, timed, seen))
    measured = {
        "memory": _memory(checkpoint, about, empty, held, seen),
        "speed": speed,
        "sampled": seen,
        "notes": notes,
    }
    steps = [*(h.died_in for h in held), *(turns.variant.died_in for turns in timed.turns.values())]
    return base.model_copy(update=measured | {"died_in": next(filter(None, steps), None)})


def _speed(
    held: list[Held],
    timed: Timed,
    ceilings: Ceilings,
    energy: Meter,
    about: dict[str, Any],
    price: float | None,
) -> SpeedRecord:
    return SpeedRecord(
        kernel=about["kernel"],
        dtype=about["dtype"],
        threads=about["threads"],
        load_seconds=about["seconds"],
        points=tuple(points(held, timed, price, ceilings, about)),
        baseline=timed.baseline,
        baseline_reason=timed.reason,
        before=timed.before,
        after=timed.after,
        bandwidth=ceilings.bandwidth,
        bandwidth_reason=ceilings.reason,
        energy_source=energy.source,
        energy_reason=energy.reason or _too_brief(timed),
        price_per_device_hour=price,
    )


def _notes(device: Device, timed: Timed, seen: SampledMemory | None) -> list[str]:
    """What kept a figure out of the record, or shortened it."""
    said = []
    for work, turns in timed.turns.items():
        whose = {"the variant": turns.variant, "the 16-bit variant": turns.baseline}
        for name, one in whose.items():
            if one and one.failure and one.repeats:
                said.append(
                    f"{work.label}: {name} failed after {len(one.repeats)} repeats, its figures are of these:"
                    f" {one.failure.reason}."
                )
    return said + _memory_notes(device, seen)


def _too_brief(timed: Timed) -> str | None:
    """Why a workload has no joules though there is a counter."""
    ran = [turns.variant for turns in timed.turns.values() if turns.variant.repeats]
    if all(one.seconds(decode) >= LEAST_SECONDS for one in ran for decode in (False, True)):
        return None
    return (
        f"all repeats together took less than {LEAST_SECONDS:g} s, too little for a counter that moves in"
        " steps"
    )


def _memory_notes(device: Device, seen: SampledMemory | None) -> list[str]:
    said = []
    if seen and seen.peak_vram_bytes is not None and seen.peak_vram_above_empty_bytes is None:
        said.append(
            "GPU memory above the empty engine is not known: this engine opens its GPU only when it loads."
        )
    if seen and seen.peak.tree_pss_bytes is None and not device.places.gpus:
        said.append(
            "Proportional set sizes could not be read: resident memory counts pages that processes share more"
            " than once."
        )
    if seen and seen.peak.tree_swap_bytes:
        said.append(
            f"Up to {seen.peak.tree_swap_bytes / 1e9:.2f} GB of it was swapped out and is not in its"
            " proportional set size."
        )
    return said


def _died(base: MeasureRecord, error: CellFailure, seen: SampledMemory | None) -> MeasureRecord:
    """The record of a checkpoint that could not be loaded or run."""
    step = seen.last.step if seen and isinstance(error, WorkerDied) else None
    return base.model_copy(update={"failure": _with_last_look(error, seen), "sampled": seen, "died_in": step})


def _with_last_look(error: CellFailure, seen: SampledMemory | None) -> Failure:
    """The failure with what the process held when it was last looked at."""
    if seen is None or not isinstance(error, WorkerDied):
        return Failure.of(error)
    return Failure(kind=error.kind, reason=f"{error.reason}, {seen.last_words}")


def _memory(
    checkpoint: Checkpoint, about: dict[str, Any], empty: int, held: list[Held], seen: SampledMemory | None
) -> MemoryRecord:
    ran = [h for h in held if h.failure is None]
    largest = max(ran, key=lambda h: h.kv_cache_bytes or 0, default=None)
    return MemoryRecord(
        disk_bytes=checkpoint.disk_bytes,
        weights_bytes=about["weights_bytes"],
        weights_reason=about["weights_reason"],
        weights_by_device_bytes=about["by_device"],
        kv_cache_bytes=largest.kv_cache_bytes if largest else None,
        state_bytes=largest.state_bytes if largest else None,
        cache_dtype=about["cache_dtype"],
        empty_process_rss_bytes=empty,
        loaded_process_rss_bytes=about["rss_bytes"],
        peak_process_rss_bytes=max((h.peak_rss_bytes or 0 for h in ran), default=about["rss_bytes"]),
        peak_allocated_bytes=max(
            (h.peak_allocated_bytes for h in ran if h.peak_allocated_bytes is not None), default=None
        ),
        peak_reserved_bytes=max(
            (h.peak_reserved_bytes for h in ran if h.peak_reserved_bytes is not None), default=None
        ),
        process_vram_bytes=seen.peak_vram_bytes if seen else None,
    )
