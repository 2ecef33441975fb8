"""Clean up what a killed run left in a workspace, before the next run begins."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import yaml

from quantlab.errors import QuantlabError
from quantlab.files import write_text
from quantlab.outside import disk_full
from quantlab.scratch import PARTIAL, sweep

_TRIED_BYTES = 2**18
"""Of a file that is written and removed, to see whether the workspace takes one."""


def tidy(root: Path) -> None:
    """Remove temporary folders, locks of DVC and a cut dvc.lock that no living process stands behind."""
    if not (root / ".dvc").is_dir():
        return
    sweep(root)
    release_stale_locks(root)
    drop_cut_lock_file(root)


def require_writable(root: Path) -> None:
    """Make the folder where it is missing. Raises QuantlabError where it cannot be written, or its disk is
    full."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=root, prefix=PARTIAL) as file:
            file.write(bytes(_TRIED_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        do = "make room" if disk_full(error) else "name another folder with --workspace"
        raise QuantlabError(f"cannot write in {root}: {error.strerror}; {do}") from None


def release_stale_locks(root: Path) -> None:
    """Take out of DVC's read and write locks (.dvc/tmp/rwlock) what processes hold that are gone.

    DVC does so too, but only where no other process has got the number since, as in a container that was
    started again."""
    import zc.lockfile

    path = root / ".dvc" / "tmp" / "rwlock"
    if not path.is_file():
        return
    try:
        guard = zc.lockfile.LockFile(str(path.with_name("rwlock.lock")))
    except zc.lockfile.LockError:  # a DVC that lives is writing it this moment
        return
    try:
        before = path.read_text(encoding="utf-8")
        kept = _held(before)
        if kept is None:
            path.unlink(
                missing_ok=True
            )  # cut in the middle by a kill: DVC would refuse to read it ever after
        elif kept != json.loads(before):
            write_text(path, json.dumps(kept))
    finally:
        guard.close()


def _held(text: str) -> dict[str, Any] | None:
    """What living processes hold of such a file; None where it is none."""
    try:
        locks = json.loads(text)
        read = {
            name: [one for one in holders if _holds(one)]
            for name, holders in (locks.get("read") or {}).items()
        }
        write = {name: holder for name, holder in (locks.get("write") or {}).items() if _holds(holder)}
    except (ValueError, AttributeError, TypeError, KeyError):
        return None
    return {"read": {name: held for name, held in read.items() if held}, "write": write}


def _holds(holder: dict[str, Any]) -> bool:
    """Whether the process that holds a lock lives, and is one that could have taken it."""
    import psutil

    try:
        process = psutil.Process(int(holder["pid"]))
        words = " ".join(process.cmdline())
        return process.status() != psutil.STATUS_ZOMBIE and (
            "dvc" in words or "quantlab" in words or not words
        )
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True


def drop_cut_lock_file(root: Path) -> None:
    """Remove a dvc.lock that a kill or a full disk cut in the middle of being written: DVC has all of it in
    its run cache."""
    path = root / "dvc.lock"
    with contextlib.suppress(FileNotFoundError):
        try:
            if isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict):
                return
        except (yaml.YAMLError, UnicodeDecodeError):
            pass
        path.unlink()
