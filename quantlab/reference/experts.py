"""Store to which experts the unquantized model sends each scored token: one byte for each expert that a
token passes, or two above 256 experts. That is 464 bytes a token for DeepSeek V3 (58 blocks, 8 experts each),
whose final hidden state takes 14,336."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantlab.analysis.routing import as_sets, kept_type
from quantlab.engines._transformers.experts import ChosenExperts
from quantlab.frozen import Frozen
from quantlab.reference.arrays import ArrayFile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EXPERTS = "experts.npy"


class StoredExperts(Frozen):
    """What is stored, shape (windows, scored tokens, blocks, experts per token)."""

    blocks: tuple[int, ...]
    """Numbers of the blocks that have experts."""
    experts: int
    """Of a block, routed ones alone."""
    experts_per_token: int
    sha256: str
    """Of the array, without the file's header."""
    bytes_per_scored_token: float


class ExpertsWriter:
    """Writes what a model's routers chose, window by window, until a router does not tell."""

    def __init__(self, model: Any, folder: Path, windows: int, rows: slice) -> None:
        self._chosen, self._path = ChosenExperts(model), folder / EXPERTS
        self._windows, self._rows = windows, rows
        self._file: ArrayFile | None = None
        self._blocks: tuple[int, ...] = ()
        self.reason: str | None = None

    def append(self, tokens: int) -> None:
        """Write the choices for the window of so many tokens that the model has just run."""
        import numpy as np

        chosen = self._chosen.take(tokens)
        self.reason = self.reason or chosen.reason
        if self.reason or not chosen.by_block:
            return
        together = np.stack([chosen.by_block[block] for block in sorted(chosen.by_block)], axis=1)
        dtype = kept_type(self._chosen.sizes.routed)
        if int(together.max()) > np.iinfo(dtype).max:
            self.reason = f"a router chose expert {together.max()}, of {self._chosen.sizes.routed}"
            return
        sets = as_sets(together[self._rows], self._chosen.sizes.routed)
        if self._file is None:
            self._blocks = tuple(sorted(chosen.by_block))
            self._file = ArrayFile(self._path, dtype, (self._windows, *sets.shape))
        self._file.append(sets)

    def close(self) -> StoredExperts | None:
        """What was stored; None where there was nothing, and then no file is left."""
        self._chosen.remove()
        if self._file is None:
            return None
        self._file.close()
        if self.reason:
            self._path.unlink()
            return None
        windows, tokens, _, per_token = self._file.shape
        return StoredExperts(
            blocks=self._blocks,
            experts=self._chosen.sizes.routed,
            experts_per_token=per_token,
            sha256=self._file.sha256,
            bytes_per_scored_token=self._file.bytes / (windows * tokens),
        )


def read_experts(folder: Path, window: int) -> NDArray[np.integer[Any]]:
    """The stored sets of one window, shape (scored tokens, blocks, experts per token)."""
    import numpy as np

    # mapped anew each time: pages that stay mapped count as the process's memory
    stored: NDArray[np.integer[Any]] = np.array(
        np.load(folder / EXPERTS, mmap_mode="r", allow_pickle=False)[window]
    )
    return stored
