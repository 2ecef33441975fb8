"""Load a checkpoint from disk in a fresh process and compute its logits: `python -m quantlab.stages._reload`.

Libraries that quantize replace classes of transformers in the process that they run in: a checkpoint that
loads there may load nowhere else."""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from quantlab import engines, processes
from quantlab.analysis.divergence import is_finite
from quantlab.environments.deaths import ending
from quantlab.errors import CellFailure, QuantlabError
from quantlab.outside import as_failure, ended_from_outside, memory_kills
from quantlab.scratch import scratch
from quantlab.workspace.checkpoint import Checkpoint, Manifest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SETTINGS = "job.json"
_TOKENS, _REAL, _DENSE = "tokens.npy", "real.npy", "dense.npy"
_NOTE = "note.txt"
_ERROR = "error.json"
_NOT_FINITE = "not finite"
"""In place of a kind of failure; the reason is then the dtype."""


class NotFinite(CellFailure):
    """A checkpoint that was loaded gives logits that are no numbers."""

    def __init__(self, dtype: str) -> None:
        super().__init__(
            "broken_checkpoint", f"the reloaded checkpoint gives logits that are not finite (in {dtype})"
        )
        self.dtype = dtype
        """That it computed in."""


class Reloaded(NamedTuple):
    """Logits (length, vocabulary) of the checkpoint as it was loaded."""

    real: NDArray[np.float32]
    """By the kernel that multiplies its packed layers."""
    dense: NDArray[np.float32] | None
    """By the same layers dequantized once; None where that was not asked for."""
    opening_note: str | None = None
    """What whoever opens it in another program must know."""


def reload(checkpoint: Checkpoint, device: str, token_ids: NDArray[np.int64], dense: bool) -> Reloaded:
    """Load the checkpoint here. Raises CellFailure where it does not load or gives no finite logits."""
    real, note = _logits(checkpoint, device, token_ids)
    return Reloaded(real, _logits(checkpoint, device, token_ids, dense=True)[0] if dense else None, note)


def reload_apart(
    checkpoint: Checkpoint, device: str, token_ids: NDArray[np.int64], dense: bool, root: Path
) -> Reloaded:
    """The same in a fresh process, with its files in the workspace at `root`."""
    import numpy as np

    with scratch(root) as folder:
        job = {"folder": str(checkpoint.folder), "device": device, "dense": dense}
        job["manifest"] = checkpoint.manifest.model_dump_json()
        (folder / _SETTINGS).write_text(json.dumps(job), encoding="utf-8")
        np.save(folder / _TOKENS, token_ids)
        kills = memory_kills()
        command = [sys.executable, "-P", "-m", "quantlab.stages._reload", str(folder)]
        code = processes.run(command).returncode
        if code:
            raise _failure(folder, code, kills)
        note = (folder / _NOTE).read_text(encoding="utf-8") or None
        return Reloaded(np.load(folder / _REAL), np.load(folder / _DENSE) if dense else None, note)


def _logits(
    checkpoint: Checkpoint, device: str, token_ids: NDArray[np.int64], dense: bool = False
) -> tuple[NDArray[np.float32], str | None]:
    """The logits, and what whoever opens the checkpoint in another program must know."""
    engine = engines.load(engines.engine_for(checkpoint.manifest.format)).open_checkpoint(
        checkpoint, device, dense
    )
    try:
        logits = engine.logits(token_ids)
    finally:
        engine.close()
    if not is_finite(logits):
        raise NotFinite(engine.dtype)
    return logits, engine.opening_note


def _failure(folder: Path, code: int, kills: int | None) -> Exception:
    """What the end of the fresh process means."""
    what = "the process that loads the checkpoint again"
    if outside := ended_from_outside(code, kills, folder, what):
        return outside
    path = folder / _ERROR
    if not path.exists():
        return CellFailure("broken_checkpoint", f"{what} {ending(code)}: see the log")
    said = json.loads(path.read_text(encoding="utf-8"))
    if said["kind"] == "usage":
        return QuantlabError(said["reason"])
    if said["kind"] == _NOT_FINITE:
        return NotFinite(said["reason"])
    return CellFailure(said["kind"], said["reason"])


def main(folder: Path) -> int:
    """Load the checkpoint and leave its logits; 1 with an error file where it cannot be loaded."""
    import numpy as np

    processes.end_with_parent()
    job: dict[str, Any] = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
    checkpoint = Checkpoint(Path(job["folder"]), Manifest.model_validate_json(job["manifest"]))
    try:
        result = reload(checkpoint, job["device"], np.load(folder / _TOKENS), job["dense"])
    except QuantlabError as error:
        _say(folder, "usage", str(error))
        return 1
    except NotFinite as error:
        _say(folder, _NOT_FINITE, error.dtype)
        return 1
    except Exception as error:  # a library may raise anything; the traceback stands in the stage's log
        traceback.print_exc()
        text = " ".join(str(error).split())[:300]
        known = as_failure(error)
        why = f"it cannot be loaded again: {type(error).__name__}: {text}"
        _say(folder, known.kind if known else "broken_checkpoint", known.reason if known else why)
        return 1
    (folder / _NOTE).write_text(result.opening_note or "", encoding="utf-8")
    np.save(folder / _REAL, result.real)
    if result.dense is not None:
        np.save(folder / _DENSE, result.dense)
    return 0


def _say(folder: Path, kind: str, reason: str) -> None:
    (folder / _ERROR).write_text(json.dumps({"kind": kind, "reason": reason}), encoding="utf-8")


if __name__ == "__main__":
    ended = main(Path(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(ended)  # a library's threads must not keep a process that has nothing left to do
