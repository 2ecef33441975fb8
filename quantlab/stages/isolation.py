"""Run a cell's stage in a child process: a crash or an out-of-memory error ends one cell and not the run.

The parent imports no torch. It sets the environment that the libraries read when they start, waits, and
records the death of a child that could not record it itself."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from quantlab import engines, methods, processes
from quantlab.environments.deaths import ending
from quantlab.errors import CellFailure, FailureKind, QuantlabError
from quantlab.hardware.device import parse_places, renumbered, visible_alone
from quantlab.measuring.sampling_client import read_samples, sample_file
from quantlab.outside import ended_from_outside, memory_kills
from quantlab.processors import cores
from quantlab.recipe import read_recipe
from quantlab.records import STAGES, Failure, Record, StageName
from quantlab.scratch import scratch
from quantlab.workspace.cell import Cell
from quantlab.workspace.logs import last_exception, log_path, said_out_of_memory, size_of
from quantlab.workspace.results import is_stale, made_with, read_record, record_path, write_record
from quantlab.workspace.tracked import changed_meanwhile

_SEES_ITS_GPUS_ALONE: tuple[StageName, ...] = ("quantize",)
"""Stages whose libraries take a GPU that nobody named: GPTQModel takes the first and every other. On the CPU
no stage sees one."""
UNWRITABLE = 74
"""Exit code of a child that could not write its record (EX_IOERR of sysexits.h)."""


def run_isolated(cell: Cell, stage: StageName, device: str, quiet: bool, **options: Any) -> Record:
    """Run the stage in a child, with options of its own, and return the record that it left.

    What the cell could not do is in the record's `failure`. Raises QuantlabError for a mistake of the user's,
    and where the recipe was changed meanwhile: the record stays, and is stale."""
    log, log_began = log_path(cell, stage), size_of(log_path(cell, stage))
    record_path(cell.root, cell.model, cell.variant.slug, stage).unlink(missing_ok=True)
    sample_file(cell.root, cell.model, cell.variant.slug).unlink(missing_ok=True)
    with scratch(cell.root) as folder:
        place = place_of(cell, stage, device)
        said, kills = folder / "error.json", memory_kills()
        job: dict[str, Any] = {
            "root": str(cell.root),
            "model": cell.model,
            "variant": cell.variant.slug,
            "stage": stage,
            "device": place.device,
        }
        job |= {"quiet": quiet, "log": str(log), "error": str(said), "options": options}
        command = [sys.executable, "-P", "-m", "quantlab.stages", json.dumps(job)]
        code = processes.run(command, env=place.environment).returncode
        error = json.loads(said.read_text()) if said.exists() else None
    if code == UNWRITABLE:
        raise CellFailure(
            "disk_full",
            f"the disk was full: the record of {stage} could not be written; the next run tries it again",
        )
    if error and error["kind"] == "usage":
        raise QuantlabError(error["message"])
    record = read_record(record_path(cell.root, cell.model, cell.variant.slug, stage), STAGES[stage].record)
    if code != 0 or record is None:
        outside = ended_from_outside(code, kills, cell.root)
        death = outside or _death(code, error, log.relative_to(cell.root), log, log_began)
        record = record_failure(cell, stage, Failure.of(death) if isinstance(death, CellFailure) else death)
    now = read_recipe(cell.root / "recipes" / f"{cell.model}.yaml")
    if is_stale(record, now):
        raise changed_meanwhile(now, stage, cell.variant.slug)
    return record


def record_failure(cell: Cell, stage: StageName, failure: Failure) -> Record:
    """Write the record of a stage that has no numbers, and whatever else later stages read."""
    from quantlab.evaluation import samples as _samples
    from quantlab.stages import quantize

    if stage == "quantize":
        quantize.record_failure(cell, failure)
    if stage == "evaluate":
        _samples.write_samples(cell.data_folder / "samples.parquet", [])
    record = made_with(
        STAGES[stage].record(model=cell.model, variant=cell.variant.slug, failure=failure), cell.recipe
    )
    seen = read_samples(sample_file(cell.root, cell.model, cell.variant.slug)) if stage == "measure" else None
    if seen and failure.kind in ("out_of_memory", "crashed", "killed"):
        last = {"failure": failure.model_copy(update={"reason": f"{failure.reason}; {seen.last_words}"})}
        record = record.model_copy(update=last | {"sampled": seen, "died_in": seen.last.step})
    write_record(cell.root, record)
    return record


def _death(code: int, error: dict[str, Any] | None, shown: Path, log: Path, began: int) -> Failure:
    """Say why a child left no record. Where a library ended the process itself, the log's last exception says
    it."""
    if code < 0:
        kind: FailureKind = "out_of_memory" if said_out_of_memory(log, began) else "crashed"
        return Failure(kind=kind, reason=f"the process {ending(code)}; its output is in {shown}")
    if error:
        return Failure(kind="crashed", reason=f"{error['message']} (traceback in {shown})")
    raised = last_exception(log, began)
    after = f" after {raised}" if raised else ""
    where = "traceback" if raised else "its output is"
    return Failure(kind="crashed", reason=f"the process ended with code {code}{after} ({where} in {shown})")


def place_of(cell: Cell, stage: StageName, device: str) -> engines.WorkerPlace:
    """What the child must see of the machine, and what the device is called there.

    A stage that opens an engine in its own process gets the engine's own view before anything in it opens
    CUDA, which reads CUDA_VISIBLE_DEVICES once."""
    environment = environment_of(cell, stage, device)
    if stage in _SEES_ITS_GPUS_ALONE:
        return engines.WorkerPlace(environment, renumbered(device))
    if stage not in ("diverge", "evaluate") or cell.variant.method not in methods.names():
        return engines.WorkerPlace(environment, device)
    name = engines.engine_or_usual(methods.load(cell.variant.method).format, cell.recipe.engine)
    return engines.load(name).place(device, environment)


def environment_of(cell: Cell, stage: StageName, device: str) -> dict[str, str]:
    """The child's environment: what the user set comes first, but for the order of the GPUs, by which they
    are named, and for which of them are seen."""
    chosen: dict[str, str] = {"TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
    if not parse_places(device).gpus:
        chosen["TORCHDYNAMO_DISABLE"] = "1"  # loading a GPTQ checkpoint otherwise compiles for minutes
        if cores() <= 2:
            chosen["GPTQMODEL_CPU_WORKERS"] = (
                "2"  # with the default its loader asks for more workers than its pool has
            )
    if not cell.recipe.source.hub and cell.recipe.tasks.set != "hub":
        chosen["HF_HUB_OFFLINE"] = "1"
    if stage == "quantize" and cell.variant.method in methods.names():
        chosen |= methods.load(cell.variant.method).environment()
    hidden = visible_alone(device) if stage in _SEES_ITS_GPUS_ALONE or not parse_places(device).gpus else {}
    return chosen | dict(os.environ) | {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"} | hidden
