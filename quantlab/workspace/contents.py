"""Hash large files once per state of the file: asking again about an unchanged file takes no time.

A state is device, inode, size, modification time and change time. A file that takes another's place has
another inode, and whatever is written in place has another change time, which no program can set: `mv`, `cp
-p` and `rsync -t` keep size and modification time alone. Small files are always read."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from pathlib import Path

from quantlab.files import cache_folder, sha256, write_json
from quantlab.formats.gguf_parts import parts_of

SMALL_BYTES = 2**20
"""Below it reading the file is as quick as looking its hash up."""
SETTLED_NS = 2 * 10**9
"""A change within the clock's step of the last one leaves the change time as it is; no file system's step is
longer."""


def content_sha256(path: Path) -> str:
    """Hex digest of a file's bytes as they are now."""
    before = _state(path)
    if before[2] < SMALL_BYTES:
        return sha256(path)
    # by inode, so that neither a folder's new name nor another link to the file makes it be read again
    kept = cache_folder() / "hashes" / f"{before[0]}-{before[1]}.json"
    if (known := _read(kept, before)) is not None:
        return known
    began, digest = time.time_ns(), sha256(path)
    if _state(path) == before and began - max(before[3:]) > SETTLED_NS:
        with contextlib.suppress(OSError):  # a cache that cannot be written costs time and nothing else
            write_json(kept, {"state": before, "sha256": digest})
    return digest


def gguf_sha256(path: Path) -> str:
    """Hex digest of a GGUF file, or of the digests of all parts where it is split. Raises QuantlabError where
    a part is missing."""
    digests = [content_sha256(part) for part in parts_of(path)]
    return digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()


def _state(path: Path) -> list[int]:
    seen = path.stat()
    return [seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns]


def _read(kept: Path, state: list[int]) -> str | None:
    try:
        cached = json.loads(kept.read_text(encoding="utf-8"))
        return str(cached["sha256"]) if cached["state"] == state else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
