"""Pass arrays between two processes through files: a line of JSON has their paths."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]

_NUMBERS = itertools.count()


def put(folder: Path, sender: str, arrays: Arrays) -> dict[str, str]:
    """Write each array to a file of its own in the folder, and give the paths by name; `sender` keeps two
    processes' files apart."""
    import numpy as np

    paths = {}
    for name, array in arrays.items():
        paths[name] = str(folder / f"{sender}-{next(_NUMBERS)}.npy")
        np.save(paths[name], array, allow_pickle=False)
    return paths


def take(paths: Mapping[str, str]) -> dict[str, NDArray[Any]]:
    """Read the arrays and remove their files."""
    import numpy as np

    arrays = {name: np.load(path, allow_pickle=False) for name, path in paths.items()}
    for path in paths.values():
        Path(path).unlink()
    return arrays
