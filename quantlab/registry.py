"""The registry of a folder of modules: a file's name is the name of what it brings."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from types import ModuleType

from quantlab.errors import unknown


def names(paths: Sequence[str]) -> tuple[str, ...]:
    """Names of the modules in a package's folder, sorted; those that begin with `_` are private."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(paths) if not m.name.startswith("_")))


def load(package: str, paths: Sequence[str], what: str, name: str) -> ModuleType:
    """Import one module of the folder. Raises QuantlabError for a name that is not there."""
    known = names(paths)
    if name not in known:
        raise unknown(what, name, known)
    return importlib.import_module(f"{package}.{name}")
