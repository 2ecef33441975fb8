"""Install exact versions into another interpreter: with uv where it is on the path, else venv and pip."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from quantlab import processes
from quantlab.errors import QuantlabError

_LONGEST = 400
_SETTINGS_OF_UV = {
    "PIP_INDEX_URL": "UV_DEFAULT_INDEX",
    "PIP_EXTRA_INDEX_URL": "UV_INDEX",
    "PIP_FIND_LINKS": "UV_FIND_LINKS",
}
"""uv reads none of pip's settings: those that say where packages are it is told."""


class Installer(NamedTuple):
    """A program that makes environments."""

    name: str
    make: Sequence[str]
    """Makes an empty environment in the folder that is added."""
    install: Sequence[str]
    """Installs what is added; `{python}` is the environment's interpreter."""
    environment: Mapping[str, str]


def find() -> Installer:
    """uv where it is on the path, else Python's venv and pip."""
    uv = shutil.which("uv")
    if uv:
        where = {new: os.environ[old] for old, new in _SETTINGS_OF_UV.items() if os.environ.get(old)}
        make = [uv, "venv", "--quiet", "--python", sys.executable]
        install = [uv, "pip", "install", "--quiet", "--python", "{python}"]
        return Installer("uv", make, install, where | os.environ)
    quiet = ["--quiet", "--no-input", "--no-compile", "--disable-pip-version-check"]
    return Installer(
        "pip",
        [sys.executable, "-P", "-m", "venv"],
        ["{python}", "-P", "-m", "pip", "install", *quiet],
        dict(os.environ),
    )


def run(command: Sequence[str], environment: Mapping[str, str], waiting: Callable[[], None]) -> str:
    """Run a command to its end and give what it said; `waiting` is called every second. Raises QuantlabError
    with the command's last words where it fails."""
    process = subprocess.Popen(
        command,
        env=dict(environment) | {"PYTHONNOUSERSITE": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        preexec_fn=processes.child_begins(),
    )
    try:
        said = _wait(process, waiting)
    except BaseException:  # an interrupt, too: no child outlives it
        processes.end_tree(process.pid)
        raise
    if process.returncode:
        words = [line for line in said.splitlines() if line.strip()][-3:]
        raise QuantlabError(f"{Path(command[0]).name} failed: {' '.join(' '.join(words).split())[:_LONGEST]}")
    return said


def _wait(process: subprocess.Popen[str], waiting: Callable[[], None]) -> str:
    while True:
        try:
            return process.communicate(timeout=1)[0]
        except subprocess.TimeoutExpired:
            waiting()
