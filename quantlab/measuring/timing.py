"""Time a variant with the 16-bit variant beside it: alternately if both fit, else one after the other."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import NamedTuple

from quantlab.errors import CellFailure
from quantlab.hardware.condition import busy, conditions, moved
from quantlab.hardware.device import Device
from quantlab.hardware.energy import Meter
from quantlab.measuring.beside import fit_together, sixteen_bit
from quantlab.measuring.memory import Held
from quantlab.measuring.speed import Turns, alternate
from quantlab.measuring.worker_client import GridPoint, Worker
from quantlab.progress import Progress, Step
from quantlab.records import BaselineRun, Pairing
from quantlab.records.measured import Conditions, SampledMemory
from quantlab.workspace.cell import Cell


class Timed(NamedTuple):
    """The repeats of every workload that ran."""

    turns: dict[GridPoint, Turns]
    baseline: BaselineRun | None
    reason: str | None
    """Why there is no 16-bit variant beside it; None also where the cell is one."""
    before: Conditions
    after: Conditions

    def notes(self, cores: int) -> tuple[str, ...]:
        """What a reader of the timings must know."""
        return (*busy(self.before, cores), *moved(self.before, self.after))


def time_all(
    cell: Cell,
    device: Device,
    worker: Worker,
    held: Sequence[Held],
    seen: SampledMemory | None,
    meter: Meter,
    progress: Progress,
    load: float | None = None,
) -> Timed:
    """Time the workloads that ran. Where both variants do not fit at once, the worker's process is closed
    before the other's opens.

    `load` is the load average before the measurement began.
    """
    works, repeats = [h.work for h in held if h.failure is None], cell.recipe.measure.repeats
    beside = sixteen_bit(cell, worker.engine)
    if beside.cell is None or not works:
        with progress.step(f"{cell.variant.slug}: prefill and decode", len(works) * repeats) as step:
            return _timed(works, worker, None, repeats, device, meter, step, load, beside.reason)
    if not worker.fit:  # free memory is read while the variant holds its own
        with contextlib.suppress(CellFailure):  # told at its own turn
            worker.warm_up(works[-1])
    together = fit_together(beside.cell, seen, worker.about["weights_bytes"], device)
    slug = beside.cell.variant.slug
    longest, most = max(work.tokens for work in works), max(work.batch for work in works)
    what = f"{cell.variant.slug} {'in turn with' if together else 'and then'} {slug}: prefill and decode"
    with progress.step(what, len(works) * repeats * (1 if together else 2)) as step:
        if together:
            with Worker(beside.cell, worker.engine, device.device, longest, most) as other:
                reason = _load(other)
                timed = _timed(
                    works, worker, None if reason else other, repeats, device, meter, step, load, reason
                )
                return timed if reason else timed._replace(baseline=_baseline(other, "alternating"))
        timed = _timed(works, worker, None, repeats, device, meter, step, load)
        worker.close()
        with Worker(beside.cell, worker.engine, device.device, longest, most) as other:
            return _then(other, timed, works, repeats, device, meter, step)


def _then(
    other: Worker,
    timed: Timed,
    works: Sequence[GridPoint],
    repeats: int,
    device: Device,
    meter: Meter,
    step: Step,
) -> Timed:
    """The 16-bit variant's repeats after the variant's, whose process is gone."""
    reason = _load(other)
    if reason:
        return timed._replace(reason=reason)
    turns = _timed(works, other, None, repeats, device, meter, step).turns
    both = {work: turn._replace(baseline=turns[work].variant) for work, turn in timed.turns.items()}
    return timed._replace(turns=both, baseline=_baseline(other, "sequential"))


def _load(other: Worker) -> str | None:
    """Why the 16-bit variant does not run, None where it is ready."""
    try:
        other.open_device()
        other.load()
    except CellFailure as error:
        return f"{other.cell.variant.slug} does not load beside it: {error.reason}"
    return None


def _baseline(other: Worker, pairing: Pairing) -> BaselineRun:
    return BaselineRun(
        variant=other.cell.variant.slug,
        checkpoint_sha256=other.cell.checkpoint().sha256,
        pairing=pairing,
        kernel=other.about["kernel"],
        dtype=other.about["dtype"],
    )


def _timed(
    works: Sequence[GridPoint],
    worker: Worker,
    other: Worker | None,
    repeats: int,
    device: Device,
    meter: Meter,
    step: Step,
    load: float | None = None,
    reason: str | None = None,
) -> Timed:
    """The conditions are read right after the first workload's warm-up and the last repeat: an idle GPU
    lowers its clocks.

    Both are warmed up whatever they ran last: one stood still while the other loaded.
    """
    for one in (worker, other):
        if works and one is not None:
            one.last = None
            with contextlib.suppress(CellFailure):  # told at its own turn
                one.warm_up(works[0])
    before = conditions(device, load)
    turns = {work: alternate(worker, other, work, repeats, meter, step) for work in works}
    return Timed(turns, None, reason, before, conditions(device))
