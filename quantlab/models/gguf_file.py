"""Check a GGUF file by its header, without loading it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quantlab.environments.install import bring
from quantlab.errors import QuantlabError
from quantlab.formats.gguf_parts import parts_of

MAGIC = b"GGUF"


def check_gguf(path: Path) -> None:
    """Raise QuantlabError where a file or a part that follows it is missing, not GGUF or truncated, or the
    gguf package is not installed."""
    parts = parts_of(path) if path.is_file() else (path,)
    for part in parts:
        _check_file(part, len(parts))


def _check_file(path: Path, parts: int) -> None:
    if not path.is_file():
        raise QuantlabError(f"the file {path} does not exist: name a GGUF file that exists")
    with path.open("rb") as file:
        magic = file.read(4)
    if magic != MAGIC:
        raise QuantlabError(
            f"{path} begins with {magic!r}, a GGUF file with {MAGIC!r}: name a GGUF file or a"
            " folder of safetensors"
        )
    try:
        from gguf import GGUFReader
    except ModuleNotFoundError as error:
        if error.name != "gguf":
            raise
        raise QuantlabError(f"reading a GGUF file needs the package gguf: {bring('gguf')}") from None
    from quantlab.architecture.gguf_header import read_header

    # bounded: the package reads as many values as a header announces, and takes minutes for it
    metadata = read_header(path).metadata
    count = metadata.get("split.count") or 1
    if count != parts:
        raise QuantlabError(
            f"{path} says that it is part {metadata.get('split.no', 0) + 1} of {count}, and its name that it"
            f" is one of {parts}: name the parts as llama.cpp does, NAME-00001-of-{count:05d}.gguf"
        )
    size = path.stat().st_size
    try:
        tensors = _bounded(GGUFReader)(path).tensors
    except (ValueError, IndexError, KeyError, OverflowError, RecursionError) as error:
        raise _damaged(
            path, f"its {size} bytes do not hold what its header describes ({' '.join(str(error).split())})"
        ) from None
    end = max((int(t.data_offset) + int(t.n_bytes) for t in tensors), default=0)
    if end > size:
        raise _damaged(path, f"its tensors end at byte {end} and it has {size}")
    if not tensors:
        raise _damaged(path, "it has no tensors")


def _bounded(reader: Any) -> Any:
    """The gguf package's reader, which else goes on for 2**60 elements of an array behind the end of its
    file."""

    class Bounded(reader):  # type: ignore[misc]
        def _get(self, offset: int, dtype: Any, count: int = 1, *rest: Any, **named: Any) -> Any:
            import numpy as np

            if int(offset) + np.dtype(dtype).itemsize * int(count) > len(self.data):
                raise ValueError("a field ends behind the end of the file")
            return super()._get(offset, dtype, count, *rest, **named)

    return Bounded


def _damaged(path: Path, why: str) -> QuantlabError:
    return QuantlabError(f"{path} is truncated or damaged: {why}; download it again")
