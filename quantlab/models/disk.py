"""Check the free disk space before anything is written."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

from quantlab.errors import QuantlabError

ROOM = 1.25
"""Scales, unquantized layers and the tokenizer come on top of parameters × bits."""


def disk_needed_bytes(parameters: int, bits: float) -> int:
    """Bytes to keep free for a checkpoint of so many parameters at so many bits, with a quarter of room."""
    return math.ceil(parameters * bits / 8 * ROOM)


def require_disk(folder: Path, needed: int) -> None:
    """Raise QuantlabError where the disk of a folder (which need not exist yet) has fewer bytes free than
    needed."""
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise QuantlabError(
            f"no space on disk: about {needed / 1e9:.1f} GB are needed under {there} and {free / 1e9:.1f} GB"
            " are free; free some (`quantlab clean` shows what takes it) or work in a folder on another disk"
        )
