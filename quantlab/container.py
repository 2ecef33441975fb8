"""Read what this process's control group may use: processors and memory, of both versions of Linux's groups.

A container shows the whole machine's processors and memory everywhere but here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path("/")
_NO_LIMIT = 2**60
"""Version 1 writes the largest multiple of a page for no limit."""


class _Files(NamedTuple):
    """The names of a version's files."""

    limit: str
    used: str
    idle: str
    """The line of memory.stat with the pages of files that are in no use."""


_OLD = _Files("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_NEW = _Files("memory.max", "memory.current", "inactive_file")


def processor_quota(root: Path = ROOT) -> float | None:
    """Processors' worth of time that the group and those above it may use; None without a limit."""
    new = [_quota(folder / "cpu.max") for folder in _folders(root, None)]
    old = [
        _quota(folder / "cpu.cfs_quota_us", folder / "cpu.cfs_period_us") for folder in _folders(root, "cpu")
    ]
    return min((quota for quota in (*new, *old) if quota is not None), default=None)


def memory_limit_bytes(root: Path = ROOT) -> int | None:
    """The smallest limit on memory of the group and those above it; None without one."""
    limits = [limit for folder, files in _memory(root) if (limit := _limit(folder, files)) is not None]
    return min(limits, default=None)


def memory_left_bytes(root: Path = ROOT) -> int | None:
    """What the limits leave; None without one.

    Pages of files that are in no use (`inactive_file`) count as free, as the kernel drops them first.
    """
    left = [size for folder, files in _memory(root) if (size := _left(folder, files)) is not None]
    return min(left, default=None)


def _memory(root: Path) -> Iterator[tuple[Path, _Files]]:
    for controller, files in (("memory", _OLD), (None, _NEW)):
        yield from ((folder, files) for folder in _folders(root, controller))


def _folders(root: Path, controller: str | None) -> list[Path]:
    """The group's folder and those above it: of version 2, or of a controller of version 1.

    A container may see its own group as the top, while its name is the one outside: then the top alone is
    there."""
    group = _group(root, controller)
    if group is None:
        return []
    top = root / "sys/fs/cgroup" / (controller or "")
    here = top / group
    return [folder for folder in (here, *here.parents) if folder == top or top in folder.parents]


def _group(root: Path, controller: str | None) -> str | None:
    """The name of this process's group, as /proc/self/cgroup has it: `4:cpu,cpuacct:/name`, `0::/name`."""
    for line in (_text(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, name = line.split(":", 2)
        if (controller is None and not controllers) or (controller and controller in controllers.split(",")):
            return name.removeprefix("/")
    return None


def _quota(file: Path, period: Path | None = None) -> float | None:
    words = " ".join(filter(None, (_text(one) for one in (file, period) if one))).split()
    if len(words) != 2 or not all(word.isdigit() for word in words):
        return None  # `max`, -1 and a file that is not there are no limit
    return int(words[0]) / int(words[1])


def _limit(folder: Path, files: _Files) -> int | None:
    text = (_text(folder / files.limit) or "").strip()
    return int(text) if text.isdigit() and int(text) < _NO_LIMIT else None


def _left(folder: Path, files: _Files) -> int | None:
    limit, used = _limit(folder, files), (_text(folder / files.used) or "").strip()
    if limit is None or not used.isdigit():
        return None
    idle = re.search(rf"^{files.idle} (\d+)$", _text(folder / "memory.stat") or "", re.M)
    return max(limit - int(used) + (int(idle[1]) if idle else 0), 0)


def _text(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8")
    except OSError:
        return None
