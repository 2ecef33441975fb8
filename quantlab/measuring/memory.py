"""Run every workload once, alone on the machine, while the sampler reads memory every 10 ms."""

from __future__ import annotations

from typing import NamedTuple

from quantlab.errors import CellFailure
from quantlab.measuring.sampling_client import SamplingClient
from quantlab.measuring.worker_client import GridPoint, Worker, WorkerDied
from quantlab.progress import Step
from quantlab.records import Failure


class Held(NamedTuple):
    """What one workload held, or why it did not run."""

    work: GridPoint
    kv_cache_bytes: int | None = None
    state_bytes: int | None = None
    peak_rss_bytes: int | None = None
    """Of the process since it began (VmHWM)."""
    peak_allocated_bytes: int | None = None
    peak_reserved_bytes: int | None = None
    failure: Failure | None = None
    died_in: str | None = None


def open_and_load(worker: Worker, sampler: SamplingClient, again: str = "") -> int:
    """Import, look, load, look; resident bytes of the empty process. Raises CellFailure where it cannot be
    loaded."""
    sampler.watch(worker.pid, f"importing{again}")
    empty: int = worker.open_device()["rss_bytes"]
    if not again:
        sampler.keep("empty")
    sampler.step(f"loading{again}")
    worker.load()
    if not again:
        sampler.keep("loaded")
    return empty


def hold(worker: Worker, sampler: SamplingClient, works: list[GridPoint], step: Step) -> list[Held]:
    """Run each workload once. A process that dies or is of no more use is started again for the rest.

    Where the checkpoint does not load again, the runs before stay, and the rest fails with that reason.
    """
    runs: list[Held] = []
    for work in works:
        runs.append(_hold(worker, sampler, work))
        step.advance()
        if not worker.fit and work != works[-1]:
            try:
                worker.restart()
                open_and_load(worker, sampler, " again")
            except CellFailure as error:
                reason = (
                    f"not run: the checkpoint did not load again after {work.label} had failed:"
                    f" {error.reason}"
                )
                return runs + [
                    Held(rest, failure=Failure(kind=error.kind, reason=reason)) for rest in works[len(runs) :]
                ]
    return runs


def _hold(worker: Worker, sampler: SamplingClient, work: GridPoint) -> Held:
    longest, needed = worker.about["context_tokens"], work.length + work.decode
    if longest is not None and needed > longest:
        reason = f"{needed:,} tokens are more than the {longest:,} that the model was made for"
        return Held(work, failure=Failure(kind="unsupported", reason=reason))
    label = f"prefill {work.label}"
    try:
        worker.clear()
        sampler.step(label)
        worker.prefill(work)
        label = f"decode {work.label}"
        sampler.step(label)
        answer = worker.decode(work)
    except CellFailure as error:
        failure = Failure(kind=error.kind, reason=f"{error.reason}, in {label}")
        return Held(work, failure=failure, died_in=label if isinstance(error, WorkerDied) else None)
    sizes = {
        key: answer[key]
        for key in (
            "kv_cache_bytes",
            "state_bytes",
            "peak_rss_bytes",
            "peak_allocated_bytes",
            "peak_reserved_bytes",
        )
    }
    return Held(work, **sizes)
