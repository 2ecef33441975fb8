"""Compute the importance matrix in a child process: llama.cpp aborts if one of its assertions fails."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from quantlab.errors import CellFailure
from quantlab.methods._gguf._child import run_child
from quantlab.outside import disk_full
from quantlab.progress import Progress

SECONDS_ALLOWED = 24 * 3600.0
"""The calibration text takes minutes; a process that hangs ends some day."""


def compute_apart(
    model: Path, token_ids: Path, target: Path, log: Path, progress: Progress, device: str = "cpu"
) -> None:
    """Write the importance matrix of a GGUF file on the windows in `token_ids` (.npy) to `target`.

    Raises CellFailure where llama.cpp cannot run the model, or died of it.
    """
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".partial-imatrix-") as folder:
        said, console = Path(folder) / "failure.json", progress.descriptor()
        job = {
            "model": str(model),
            "token_ids": str(token_ids),
            "target": str(target),
            "said": str(said),
            "console": console,
            "device": device,
        }
        command = [sys.executable, "-P", "-m", "quantlab.methods._gguf.importance_apart", json.dumps(job)]
        what = "the process that computes the importance matrix"
        ended = run_child(
            what, command, log, SECONDS_ALLOWED, os.environ, () if console is None else (console,)
        )
        if said.exists():
            raise CellFailure(**json.loads(said.read_text(encoding="utf-8")))
        if ended.code:
            raise CellFailure("crashed", f"{what} ended with code {ended.code} (traceback in {log.name})")


def main(job: dict[str, Any]) -> None:
    """The child process."""
    import numpy as np

    from quantlab.methods._gguf import importance

    console = (
        None if job["console"] is None else os.fdopen(job["console"], "w", encoding="utf-8", buffering=1)
    )
    try:
        windows = np.load(job["token_ids"], allow_pickle=False)
        progress = Progress(console is None, console)
        made = importance.compute(Path(job["model"]), windows, progress, job["device"])
        importance.save(made, Path(job["target"]))
    except (CellFailure, OSError) as error:
        failure = disk_full(error) or error
        if not isinstance(failure, CellFailure):
            raise
        Path(job["said"]).write_text(
            json.dumps({"kind": failure.kind, "reason": failure.reason}), encoding="utf-8"
        )


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
