"""Find environments of their own: for libraries that pin other versions than quantlab is tested with.

Each is one file of `locks/`: exact versions of all that is installed, after a head of `# key: value` lines.
Its place in quantlab's cache is named by the hash of the file, so that another lock makes another
environment, and the old one is never mistaken for it.

| key | means |
|---|---|
| for | what it is, in words |
| needs | what the machine must have (an NVIDIA GPU) |
| stands in for | another environment, whose work it does on a machine without a GPU |
| imports | the module that must import before the environment counts |
| with dependencies | a distribution whose builds need different ones: the index's are taken |"""

from __future__ import annotations

import hashlib
import json
import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from quantlab.errors import unknown
from quantlab.files import cache_folder

State = Literal["ready", "half made", "missing"]
FOLDER = "environments"
"""In quantlab's cache."""
MARK = "quantlab.json"
"""In an environment, written last."""
_KEY = re.compile(r"^# ([a-z ]+): (.+)$")


class Locked(NamedTuple):
    """An environment, whether it is made or not."""

    name: str
    title: str
    requirements: tuple[str, ...]
    """Lines `name==version`, some with a marker."""
    digest: str
    """sha256 of the lock."""
    needs: str = ""
    stands_in_for: str = ""
    imports: str = ""
    with_dependencies: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Where it is, or will be."""
        return cache_folder() / FOLDER / f"{self.name}-{self.digest[:12]}"

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def version(self) -> str:
        """Of the distribution that it is named after."""
        return next(
            line.split("==")[1].split()[0] for line in self.requirements if line.startswith(f"{self.name}==")
        )

    @property
    def state(self) -> State:
        """`ready` only where it was made to its end and its interpreter is still there."""
        if not self.folder.is_dir():
            return "missing"
        return "ready" if (self.folder / MARK).is_file() and self.python.exists() else "half made"

    def made(self) -> dict[str, Any]:
        """What its mark says: made_by, seconds, versions; nothing before it is ready."""
        if self.state != "ready":
            return {}
        said: dict[str, Any] = json.loads((self.folder / MARK).read_text(encoding="utf-8"))
        return said

    def versions(self) -> dict[str, str]:
        """Every distribution that was installed, by its name in small letters; none before it is ready."""
        versions: dict[str, str] = self.made().get("versions", {})
        return versions


def names() -> tuple[str, ...]:
    """Every environment's name."""
    return tuple(sorted(entry.name.removesuffix(".txt") for entry in _locks().iterdir()))


def load(name: str) -> Locked:
    """The environment of that name. Raises QuantlabError for an unknown name."""
    if name not in names():
        raise unknown("environment", name, names())
    return read(name, _locks().joinpath(f"{name}.txt").read_text(encoding="utf-8"))


def suited(name: str, gpu: bool) -> Locked:
    """The environment of that name, or what stands in for it where no GPU is used."""
    wanted = load(name)
    stand_ins = (one for one in map(load, names()) if one.stands_in_for == name)
    return wanted if gpu or not wanted.needs else next(stand_ins, wanted)


def read(name: str, text: str) -> Locked:
    """An environment from the text of its lock."""
    lines = [line.strip() for line in text.splitlines()]
    head = {match[1]: match[2] for line in lines if (match := _KEY.match(line))}
    return Locked(
        name,
        head["for"],
        tuple(line for line in lines if line and not line.startswith("#")),
        hashlib.sha256(text.encode()).hexdigest(),
        head.get("needs", ""),
        head.get("stands in for", ""),
        head.get("imports", ""),
        tuple(head.get("with dependencies", "").split()),
    )


def _locks() -> Traversable:
    return files("quantlab.environments").joinpath("locks")
