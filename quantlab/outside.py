"""Recognise failures from outside that pass: a full disk, a process ended by the system or a user. The next
run retries."""

from __future__ import annotations

import errno
import re
import signal
import traceback
from collections.abc import Iterator
from pathlib import Path

from quantlab.errors import CellFailure

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""No room on the disk, none in the quota, a file beyond the limit of the process (`ulimit -f`) or of the file
system."""
_FULL_TEXT = re.compile(
    r"no space left on device|disk quota exceeded|file too large|storagefull|os error (28|122|27)\b|\d+"
    r" requested and \d+ written"
    r"|pytorchstreamwriter failed|basic_ios::clear|iostream error",
    re.IGNORECASE,
)
"""How libraries say it that keep no errno: safetensors, numpy, torch, llama.cpp's stream of a file that it
writes."""
_FROM_OUTSIDE = (
    "SIGKILL",
    "SIGTERM",
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGXCPU",
    "SIGALRM",
    "SIGUSR1",
    "SIGUSR2",
)
_NEARLY_FULL_BYTES = 2**20
_AGAIN = "the next run tries it again"


def disk_full(error: BaseException) -> CellFailure | None:
    """The failure where an exception, or one that it came from, says that the disk is full."""
    for one in _chain(error):
        text = " ".join(str(one).split())[:200]
        if (isinstance(one, OSError) and one.errno in FULL) or _FULL_TEXT.search(str(one)):
            return CellFailure("disk_full", f"the disk was full: {text}; {_AGAIN}")
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def ended_from_outside(
    code: int, kills_before: int | None, folder: Path, what: str = "the process"
) -> CellFailure | None:
    """The failure of a process that ended with this code (minus the signal), where it was ended from outside.

    `kills_before` is `memory_kills()` when it began. A write to mapped pages of a full disk is SIGBUS.
    """
    if code >= 0:
        return None
    name = signal.Signals(-code).name
    if name == "SIGKILL":
        return CellFailure("killed", f"{what} was killed {_by_whom(kills_before)}; {_AGAIN}")
    if name == "SIGBUS" and nearly_full(folder):
        return CellFailure("disk_full", f"the disk was full: {what} died of SIGBUS; {_AGAIN}")
    if name in _FROM_OUTSIDE:
        return CellFailure("killed", f"{what} was ended from outside ({name}); {_AGAIN}")
    return None


def _by_whom(kills_before: int | None) -> str:
    if not short_of_memory(kills_before):
        return "from outside (signal 9; the operating system counts no kill for want of memory)"
    likely = "" if kills_before is not None else "most likely "
    return f"by the operating system (signal 9), {likely}for want of memory"


def short_of_memory(kills_before: int | None) -> bool:
    """Whether a process that was killed was so for want of memory; where the system does not count it, that
    is taken for granted."""
    now = memory_kills()
    return now is None or kills_before is None or now > kills_before


def memory_kills() -> int | None:
    """How many processes the system has killed for want of memory, in this container where it can be told;
    None elsewhere."""
    for place in ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control", "/proc/vmstat"):
        try:
            words = Path(place).read_text().split()
        except OSError:
            continue
        if "oom_kill" in words:
            return int(words[words.index("oom_kill") + 1])
    return None


def nearly_full(folder: Path) -> bool:
    """Whether the disk of a folder has less than a megabyte left."""
    import psutil

    return psutil.disk_usage(str(folder)).free < _NEARLY_FULL_BYTES


def is_own(error: BaseException, *libraries: str) -> bool:
    """Whether quantlab's own code raised an exception while one of these packages ran it: a fault of its own
    keeps its traceback, and is not put down to the library or the model."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    packages = [str(frame.f_globals.get("__name__")).partition(".")[0] for frame in frames]
    of_these = [package for package in packages if package in ("quantlab", *libraries)]
    return of_these[-1:] == ["quantlab"]


def as_failure(error: BaseException) -> CellFailure | None:
    """What an exception of a library means for the cell; None where nobody expected it."""
    full = disk_full(error)
    if full:
        return full
    if isinstance(error, CellFailure):
        return error
    text = " ".join(str(error).split())[:300]
    if (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in text
    ):
        return CellFailure("out_of_memory", text or "out of memory")
    return None
