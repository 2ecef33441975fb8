"""Run one stage of one cell and leave its record: the child process of `quantlab.stages.isolation`."""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import traceback
from functools import partial
from pathlib import Path
from typing import Any

from quantlab.errors import CellFailure, QuantlabError
from quantlab.hardware.device import find
from quantlab.outside import as_failure
from quantlab.progress import noise_to
from quantlab.records import Failure, StageName
from quantlab.stages._rehearsal import rehearse_cell
from quantlab.stages.isolation import UNWRITABLE, record_failure
from quantlab.workspace.cell import Cell
from quantlab.workspace.results import made_with, write_record


def main(job: dict[str, Any]) -> int:
    """Run the stage; 0 where a record was written, 2 for a mistake of the user's, 1 for what nobody
    expected."""
    cell = Cell(Path(job["root"]), job["model"], job["variant"])
    with noise_to(Path(job["log"]), job["quiet"]) as progress:
        try:
            device = find(job["device"])
            recipe = cell.recipe  # read once, before the stage begins
            stage = importlib.import_module(f"quantlab.stages.{job['stage']}")
            options = job.get("options", {})
            if job["stage"] == "quantize":
                options["rehearse"] = partial(rehearse_cell, cell, device, progress)
            record = stage.run(cell, device, progress, **options)
            if job["stage"] != "quantize":
                cell.checkpoint()  # nor did its files change while they were measured
            write_record(cell.root, made_with(record, recipe))
        except QuantlabError as error:
            _say(job, "usage", str(error))
            return 2
        except (
            Exception
        ) as error:  # a library may raise anything; what is not expected keeps its traceback in the log
            traceback.print_exc()
            failure: CellFailure | None = as_failure(error)
            if failure is None:
                _say(job, "bug", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
                return 1
            return _record(cell, job["stage"], failure)
    return 0


def _record(cell: Cell, stage: StageName, failure: CellFailure) -> int:
    try:
        record_failure(cell, stage, Failure.of(failure))
    except OSError:  # where the disk is full there may be no room for the record of it either
        traceback.print_exc()
        return UNWRITABLE
    return 0


def _say(job: dict[str, Any], kind: str, message: str) -> None:
    with contextlib.suppress(OSError):  # on a full disk the log and the exit code say it
        Path(job["error"]).write_text(json.dumps({"kind": kind, "message": message}), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
