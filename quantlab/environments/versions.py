"""Read versions of installed distributions from their metadata, without importing them."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable


def installed(names: Iterable[str]) -> dict[str, str]:
    """The version of each distribution that is installed; the others are left out."""
    versions = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
