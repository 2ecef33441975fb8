"""Write an array window by window, and check later that it is still what was written: what is kept in memory
does not grow with the text."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class ArrayFile:
    """A .npy file of a shape that is known before its content is."""

    def __init__(self, path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        import numpy as np

        self.dtype, self.shape = dtype, shape
        self._digest, self._file = hashlib.sha256(), path.open("wb")
        np.lib.format.write_array_header_1_0(
            self._file,
            {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape},
        )

    @property
    def bytes(self) -> int:
        """Of the whole array, without the header."""
        return self.dtype.itemsize * math.prod(self.shape)

    @property
    def sha256(self) -> str:
        """Of what was written so far, without the header."""
        return self._digest.hexdigest()

    def append(self, values: NDArray[Any]) -> None:
        """Write one entry of the first dimension."""
        assert (values.dtype, values.shape) == (self.dtype, self.shape[1:])
        content = values.tobytes()
        self._digest.update(content)
        self._file.write(content)

    def close(self) -> None:
        self._file.close()


def is_stored(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], sha256: str) -> bool:
    """Whether a .npy file holds the array with this hash. Raises OSError or ValueError where it is none."""
    import numpy as np

    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        return read(file) == (shape, False, dtype) and _rest_sha256(file) == sha256


def _rest_sha256(file: BinaryIO) -> str:
    """Hash of what is left of an open file."""
    digest = hashlib.sha256()
    while piece := file.read(2**22):
        digest.update(piece)
    return digest.hexdigest()
