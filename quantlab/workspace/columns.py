"""Keep unfinished numbers, float32 (columns, windows, tokens): `.quantlab/items/<checkpoint
hash>/<what>-<key>.npy`.

24 bytes per token for six columns, on disk: what a run keeps in memory does not grow with the text. The file
is written whole, full of NaN, before the first window; a window without NaN is finished, so that a kill at
any byte loses one window."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Shape(NamedTuple):
    """Of the stored numbers."""

    columns: int
    windows: int
    tokens: int


class Columns:
    """Finished windows, a row in each column; `key` is a hash of everything that decides them."""

    def __init__(self, root: Path, checkpoint_sha256: str, what: str, key: str, shape: Shape) -> None:
        self.path = root / ".quantlab" / "items" / checkpoint_sha256[:32] / f"{what}-{key}.npy"
        self.shape = shape
        if not self._is_whole():
            self._create()

    def has(self, window: int) -> bool:
        """Whether a window is finished."""
        import numpy as np

        return not np.isnan(self.read()[:, window]).any()

    def put(self, window: int, values: Sequence[NDArray[Any]]) -> None:
        """Write a finished window, one array (tokens,) per column. None of the numbers is NaN."""
        self._open("r+")[:, window] = values

    def read(self) -> NDArray[np.float32]:
        """All numbers, shape (columns, windows, tokens), mapped from the file."""
        return self._open("r")

    def _open(self, mode: Any) -> NDArray[np.float32]:
        # opened anew each time: pages that stay mapped count as the process's memory
        import numpy as np

        array: NDArray[np.float32] = np.load(self.path, mmap_mode=mode, allow_pickle=False)
        return array

    def _is_whole(self) -> bool:
        try:
            return self.path.exists() and self.read().shape == self.shape
        except (ValueError, EOFError):
            return False

    def _create(self) -> None:
        import os

        import numpy as np

        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        row = np.full(self.shape.tokens, np.nan, np.float32)
        with partial.open("wb") as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": "<f4", "fortran_order": False, "shape": tuple(self.shape)}
            )
            for _ in range(self.shape.columns * self.shape.windows):
                file.write(row.tobytes())
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.path)
