"""Make temporary folders inside the workspace, and remove those whose process is gone.

The owner holds a lock (flock) on what it writes for a while. The system lets go of it when the process ends,
however it ends, on whichever machine and in whichever container: no process number that was given away again
can deceive."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PARTIAL = ".partial-"
"""How the names of unfinished files and folders begin, beside what they will be."""
FOLDER = "QUANTLAB_TMP"
"""In the environment of a stage: its temporary folder."""
_OWNER = ".owner"
_PLACES = ("checkpoints", "models", "references", "reports", "recipes", "env", ".quantlab")
_LONGEST_SOCKET_FOLDER = 75
"""Characters: libraries make sockets in $TMPDIR, whose whole path has to fit into 107."""
_YOUNG_SECONDS = 1.0


@contextlib.contextmanager
def scratch(root: Path) -> Iterator[Path]:
    """A temporary folder in the workspace for this process and its children, theirs by $TMPDIR too.

    What killed processes left here is removed first.
    """
    sweep(root)
    base = root / ".quantlab" / "tmp"
    base.mkdir(parents=True, exist_ok=True)
    with _alone(base):
        folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=base))
        owner = os.open(folder / _OWNER, os.O_WRONLY | os.O_CREAT, 0o644)
        hold(owner)
    before = {name: os.environ.get(name) for name in (FOLDER, "TMPDIR")}
    try:
        os.environ[FOLDER] = str(folder)
        if len(str(folder)) <= _LONGEST_SOCKET_FOLDER:
            os.environ["TMPDIR"] = str(folder)
        tempfile.tempdir = None  # asked anew
        yield folder
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        tempfile.tempdir = None
        shutil.rmtree(folder, ignore_errors=True)
        os.close(owner)


def sweep(root: Path) -> list[Path]:
    """Remove temporary folders and unfinished files of processes that are gone; returns what was removed."""
    abandoned = [path for path in _unfinished(root) if _is_abandoned(path)]
    base = root / ".quantlab" / "tmp"
    if base.is_dir():
        with _alone(base):
            abandoned += [path for path in base.iterdir() if path.is_dir() and _is_abandoned(path / _OWNER)]
            _remove(abandoned)
        return abandoned
    _remove(abandoned)
    return abandoned


def _unfinished(root: Path) -> Iterator[Path]:
    yield from root.glob(f"{PARTIAL}*")
    for place in _PLACES:
        for folder, folders, files in os.walk(root / place):
            yield from (Path(folder, name) for name in (*folders, *files) if name.startswith(PARTIAL))
            folders[:] = [
                name for name in folders if not name.startswith(PARTIAL)
            ]  # what is in one goes with it


def _is_abandoned(path: Path) -> bool:
    """Whether nobody holds it. What is younger than a second may not be held yet; what cannot be locked
    stays."""
    try:
        if path.name.startswith(PARTIAL) and time.time() - path.lstat().st_mtime < _YOUNG_SECONDS:
            return False
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return path.name == _OWNER  # a folder without an owner: it was killed before it had one
    except OSError:
        return False
    try:
        return hold(handle)
    finally:
        os.close(handle)


def hold(handle: int) -> bool:
    """Lock an open file or folder until it is closed; False where another holds it, or where there are no
    locks."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True


def _remove(paths: list[Path]) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _alone(base: Path) -> Iterator[None]:
    """One at a time makes a folder and locks it, or looks for those that nobody holds."""
    from filelock import FileLock

    with FileLock(base / ".lock"):
        yield
