"""From what the user calls a model to the config.json that a plan is made from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from quantlab.catalogue import Entry


class Target(NamedTuple):
    """A model to be planned."""

    slug: str
    config: Mapping[str, Any] | None
    """The contents of config.json; None for a name that no release bears: plan it from its stated parameters."""
    source: str
    """Where the config is from, in words."""
    entry: Entry | None
    warnings: tuple[str, ...] = ()


def target(name: str) -> Target:
    """The model called `name`: an alias, `org/name[@revision]`, a folder, or a config.json.

    A name that people use and no release bears resolves to itself with a warning and no config.
    Raises QuantlabError for a name that nothing bears, a file that is no config, and a hub that cannot be reached.
    """
    raise NotImplementedError
