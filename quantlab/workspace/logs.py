"""Write the log of a stage: the libraries' output, which no terminal shows."""

from __future__ import annotations

from pathlib import Path

from quantlab.workspace.cell import Cell

_LAST_WORDS_BYTES = 2**16


def log_path(cell: Cell, stage: str) -> Path:
    """Where the libraries' own output of a stage goes."""
    return cell.root / "logs" / cell.model / cell.variant.slug / f"{stage}.log"


def size_of(file: Path) -> int:
    """Bytes of a file, 0 where there is none."""
    return file.stat().st_size if file.exists() else 0


def said_out_of_memory(log: Path, began: int) -> bool:
    """Whether a library's last words, since the log had `began` bytes, were of memory: llama.cpp aborts where
    CUDA has none left."""
    if size_of(log) <= began:
        return False
    with log.open("rb") as file:
        file.seek(max(began, size_of(log) - _LAST_WORDS_BYTES))
        return b"out of memory" in file.read().lower()
