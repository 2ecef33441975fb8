"""Find modules of a folder by file name, and those of other packages by entry point."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import pkgutil
import re
from collections.abc import Sequence
from types import ModuleType
from typing import Generic, TypeVar

from quantlab.errors import QuantlabError, unknown

T = TypeVar("T")
_NAME = re.compile(r"[a-z][a-z0-9_]*")


def names(paths: Sequence[str]) -> tuple[str, ...]:
    """Names of the modules in a package's folder, sorted; those that begin with `_` are private."""
    return _names(tuple(paths))


@functools.cache  # a plan asks tens of thousands of times
def _names(paths: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(m.name for m in pkgutil.iter_modules(paths) if not m.name.startswith("_")))


def load(package: str, paths: Sequence[str], what: str, name: str) -> ModuleType:
    """Import one module of the folder. Raises QuantlabError for a name that is not there."""
    known = names(paths)
    if name not in known:
        raise unknown(what, name, known)
    return importlib.import_module(f"{package}.{name}")


class Registry(Generic[T]):
    """Objects by name: `attribute` of each file of a folder, and of each entry point of `group` in other
    packages.

    An entry point is written as pip's packages write it, in their pyproject.toml:

        [project.entry-points."quantlab.methods"]
        hqq = "quantlab_hqq:METHOD"
    """

    def __init__(self, package: str, paths: Sequence[str], what: str, kind: type[T], attribute: str) -> None:
        self._package, self._paths, self._what = package, paths, what
        self._kind, self._attribute = kind, attribute

    def names(self) -> tuple[str, ...]:
        """Every name, sorted. Raises QuantlabError where two packages bring the same."""
        return tuple(sorted({*names(self._paths), *self._from_outside()}))

    def load(self, name: str) -> T:
        """The object of that name. Raises QuantlabError for an unknown name, or a package that cannot be
        loaded."""
        outside = self._from_outside()
        if name in outside:
            entry = self._loaded(outside[name])
        elif name in names(self._paths):
            entry = getattr(importlib.import_module(f"{self._package}.{name}"), self._attribute)
        else:
            raise unknown(self._what, name, self.names())
        if not isinstance(entry, self._kind) or entry.name != name:  # type: ignore[attr-defined]
            raise QuantlabError(
                f"{self._origin(name)} is not a {self._what} named {name}: see CONTRIBUTING.md"
            )
        return entry

    def _from_outside(self) -> dict[str, importlib.metadata.EntryPoint]:
        entries: dict[str, importlib.metadata.EntryPoint] = {}
        for entry in _entry_points(self._package):
            if not _NAME.fullmatch(entry.name):
                raise QuantlabError(
                    f"{self._what} {entry.name!r} of {entry.value}: use lower-case letters, digits and _"
                )
            if entry.name in entries or entry.name in names(self._paths):
                raise QuantlabError(
                    f"two packages bring the {self._what} {entry.name}: uninstall one ({entry.value})"
                )
            entries[entry.name] = entry
        return entries

    def _loaded(self, entry: importlib.metadata.EntryPoint) -> object:
        try:
            return entry.load()
        except Exception as error:  # somebody else's module may raise anything while it is imported
            said = " ".join(str(error).split())[:200]
            raise QuantlabError(
                f"the {self._what} {entry.name} of {entry.value} cannot be loaded: {said}"
            ) from error

    def _origin(self, name: str) -> str:
        outside = self._from_outside().get(name)
        return outside.value if outside else f"{self._package}.{name}:{self._attribute}"


@functools.cache
def _entry_points(group: str) -> tuple[importlib.metadata.EntryPoint, ...]:
    """Entry points of other packages; the same distribution found twice on the path counts once."""
    return tuple(dict.fromkeys(importlib.metadata.entry_points(group=group)))
