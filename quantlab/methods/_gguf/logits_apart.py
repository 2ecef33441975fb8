"""Compute a GGUF file's logits in a child process: llama.cpp aborts if one of its assertions fails."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from quantlab.errors import CellFailure
from quantlab.methods._gguf._child import run_child

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SECONDS_ALLOWED = 3600.0
_WHAT = "the process that runs the file with llama.cpp"


def logits_apart(model: Path, token_ids: NDArray[np.int64], log: Path) -> NDArray[np.float32]:
    """The logits (length, vocabulary) of token ids (length,). Raises CellFailure where llama.cpp cannot run
    the file, or died of it."""
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        target, said = Path(folder) / "logits.npy", Path(folder) / "failure.json"
        job = {
            "model": str(model),
            "token_ids": token_ids.tolist(),
            "target": str(target),
            "said": str(said),
        }
        command = [sys.executable, "-P", "-m", "quantlab.methods._gguf.logits_apart", json.dumps(job)]
        ended = run_child(_WHAT, command, log, _SECONDS_ALLOWED, os.environ)
        if said.exists():
            raise CellFailure(**json.loads(said.read_text(encoding="utf-8")))
        if ended.code:
            raise CellFailure("crashed", f"{_WHAT} ended with code {ended.code} (traceback in {log.name})")
        logits: NDArray[np.float32] = np.load(target, allow_pickle=False)
    return logits


def logits_here(model: Path, token_ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """The same in this process."""
    from quantlab.engines._llama.library import Context, Model, one_sequence

    loaded, length = Model(model), len(token_ids)
    try:
        context = Context(loaded, length, length, length)
        try:
            return context.run(one_sequence(token_ids, all_logits=True)).copy()
        finally:
            context.close()
    finally:
        loaded.close()


def _main(job: dict[str, object]) -> None:
    """The child process."""
    import numpy as np

    try:
        logits = logits_here(Path(str(job["model"])), np.array(job["token_ids"], np.int64))
        np.save(str(job["target"]), logits)
    except CellFailure as failure:
        Path(str(job["said"])).write_text(
            json.dumps({"kind": failure.kind, "reason": failure.reason}), encoding="utf-8"
        )


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
