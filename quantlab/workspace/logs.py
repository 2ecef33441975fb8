"""Write the log of a stage: the libraries' output, which no terminal shows."""

from __future__ import annotations

import re
from pathlib import Path

from quantlab.workspace.cell import Cell

_LAST_WORDS_BYTES = 2**16
_LONGEST_EXCEPTION = 300
_EXCEPTION = re.compile(
    r"^Traceback \(most recent call last\):\n(?:[ \t].*\n|\n)*([A-Za-z_][\w.]*(?:: .*)?)$", re.MULTILINE
)
"""A traceback: indented lines of frames, then the exception's type and message."""


def log_path(cell: Cell, stage: str) -> Path:
    """Where the libraries' own output of a stage goes."""
    return cell.root / "logs" / cell.model / cell.variant.slug / f"{stage}.log"


def size_of(file: Path) -> int:
    """Bytes of a file, 0 where there is none."""
    return file.stat().st_size if file.exists() else 0


def said_out_of_memory(log: Path, began: int) -> bool:
    """Whether a library's last words, since the log had `began` bytes, were of memory: llama.cpp aborts where
    CUDA has none left."""
    return "out of memory" in _last_words(log, began).lower()


def last_exception(log: Path, began: int) -> str | None:
    """Find the last exception printed since the log had `began` bytes, in one line; None without one."""
    raised = _EXCEPTION.findall(_last_words(log, began))
    return " ".join(raised[-1].split())[:_LONGEST_EXCEPTION] if raised else None


def _last_words(log: Path, began: int) -> str:
    if size_of(log) <= began:
        return ""
    with log.open("rb") as file:
        file.seek(max(began, size_of(log) - _LAST_WORDS_BYTES))
        return file.read().decode("utf-8", errors="replace")
