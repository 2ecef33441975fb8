"""Make an environment of its own from its lock, so that what was broken off is gone on with and never used.

It is made where it will stay, because an environment cannot be moved, and counts only from the moment that
its mark is written: after every version of the lock is there and its main module has been imported. Versions
are installed a few at a time; the next try keeps those that are whole and installs the rest."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from quantlab.environments import installers
from quantlab.environments.locked import MARK, Locked
from quantlab.errors import QuantlabError
from quantlab.files import write_json
from quantlab.progress import Progress

_AT_ONCE = 12
"""Distributions that are installed by one command."""


def make(locked: Locked, progress: Progress, installer: installers.Installer | None = None) -> Locked:
    """Make the environment, or finish it; nothing is done where it is ready. Raises QuantlabError."""
    from filelock import FileLock

    locked.folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{locked.folder}.lock"):
        if locked.state != "ready":
            _make(locked, progress, installer or installers.find())
    return locked


def remove(locked: Locked) -> None:
    """Remove the environment, whole or half made."""
    (locked.folder / MARK).unlink(missing_ok=True)  # first, so that what is left never counts
    shutil.rmtree(locked.folder, ignore_errors=True)


def wanted(locked: Locked) -> list[str]:
    """The lock's lines that apply to this machine and this Python."""
    from packaging.requirements import Requirement

    lines = []
    for line in locked.requirements:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate():
            lines.append(f"{requirement.name}{requirement.specifier}")
    return lines


def _make(locked: Locked, progress: Progress, installer: installers.Installer) -> None:
    began, lines = time.monotonic(), wanted(locked)
    with progress.step(f"installing {locked.name} with {installer.name}", len(lines) + 1) as step:
        _begin(locked, installer, lambda: step.advance(0))
        missing = _missing(locked, lines)
        step.advance(len(lines) - len(missing))
        for batch, options in _batches(locked, missing):
            _install(locked, installer, batch, options, lambda: step.advance(0))
            step.advance(len(batch))
        if absent := _missing(locked, lines):
            raise QuantlabError(f"{locked.name} was installed without {', '.join(absent)}: try again")
        _try(locked, lambda: step.advance(0))
    made = {
        "name": locked.name,
        "lock_sha256": locked.digest,
        "made_by": installer.name,
        "seconds": round(time.monotonic() - began, 1),
        "versions": installed(locked.folder),
    }
    write_json(locked.folder / MARK, made)


def _begin(locked: Locked, installer: installers.Installer, waiting: Callable[[], None]) -> None:
    """An empty environment, unless there is one whose interpreter runs; half-written distributions go."""
    if locked.python.exists() and (locked.folder / "pyvenv.cfg").is_file():
        try:
            installers.run([str(locked.python), "-P", "-c", ""], installer.environment, waiting)
        except (QuantlabError, OSError):
            remove(locked)
    if not locked.python.exists():
        remove(locked)
        installers.run([*installer.make, str(locked.folder)], installer.environment, waiting)
    for folder in _site(locked.folder).glob("*.dist-info"):
        if not (folder / "RECORD").is_file():  # installers write it last
            shutil.rmtree(folder)


def _batches(locked: Locked, lines: list[str]) -> Iterator[tuple[list[str], list[str]]]:
    """What one command installs, with its options; what needs other distributions comes first, so that the
    lock has the last word on them."""
    first = [line for line in lines if line.partition("==")[0] in locked.with_dependencies]
    yield from (([line], []) for line in first)
    rest = [line for line in lines if line not in first]
    for begin in range(0, len(rest), _AT_ONCE):
        yield rest[begin : begin + _AT_ONCE], ["--no-deps"]


def _install(
    locked: Locked,
    installer: installers.Installer,
    batch: list[str],
    options: list[str],
    waiting: Callable[[], None],
) -> None:
    command = [part.replace("{python}", str(locked.python)) for part in installer.install]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(batch) + "\n")
        file.flush()
        installers.run([*command, *options, "-r", file.name], installer.environment, waiting)


def _missing(locked: Locked, lines: list[str]) -> list[str]:
    """Lines whose version is not installed; a build of that version (+cpu) is."""
    from packaging.requirements import Requirement

    have = installed(locked.folder)
    asked = [(line, Requirement(line)) for line in lines]
    return [
        line
        for line, one in asked
        if not one.specifier.contains(have.get(_plain(one.name), "0"), prereleases=True)
    ]


def installed(folder: Path) -> dict[str, str]:
    """The version of every distribution in an environment, by its name in small letters with hyphens."""
    found = importlib.metadata.distributions(path=[str(_site(folder))])
    return dict(sorted((_plain(one.name), one.version) for one in found if one.name))


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def _site(folder: Path) -> Path:
    return next(iter((folder / "lib").glob("python3*/site-packages")), folder / "lib")


def _try(locked: Locked, waiting: Callable[[], None]) -> None:
    """Import what it is for: a library that is installed and does not work is found here."""
    if locked.imports:
        command = [str(locked.python), "-P", "-c", f"import {locked.imports}"]
        installers.run(command, os.environ, waiting)
