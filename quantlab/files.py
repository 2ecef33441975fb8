"""Write files whole or not at all, and hash them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from quantlab.scratch import PARTIAL, hold


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically: a temporary file beside the target, then a rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{PARTIAL}{path.name}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            hold(handle)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:  # an interrupt, too: nothing half-written stays
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, keys in the given order, two spaces of indent."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder that appears at `target` only when the block ends well.

    What a killed run leaves behind begins with `.partial-` beside the target; the next run removes it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for stale in target.parent.glob(f"{PARTIAL}{target.name}-*"):
        shutil.rmtree(stale, ignore_errors=True)
    with folder_beside(target) as partial:
        yield partial
        if target.exists():
            shutil.rmtree(target)
        partial.rename(target)


@contextmanager
def folder_beside(target: Path) -> Iterator[Path]:
    """A folder on the same disk as `target`, removed when the block ends unless it was renamed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=target.parent, prefix=f"{PARTIAL}{target.name}-"))
    handle = os.open(partial, os.O_RDONLY)
    hold(handle)
    try:
        partial.chmod(0o755)
        yield partial
    finally:
        os.close(handle)
        shutil.rmtree(partial, ignore_errors=True)


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
    """quantlab's cache: `$QUANTLAB_CACHE`, else the user's cache folder."""
    import platformdirs

    return Path(os.environ.get("QUANTLAB_CACHE") or platformdirs.user_cache_dir("quantlab", appauthor=False))
