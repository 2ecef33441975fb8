"""Read the config.json of the catalogue's models, so that planning needs no hub. Each file names its
source."""

from __future__ import annotations

import json
from typing import Any

from quantlab.catalogue.files import HERE
from quantlab.frozen import Frozen

FOLDER = HERE / "configs"


class KnownConfig(Frozen):
    """What is known of a model's architecture."""

    source: str
    note: str = ""
    repository_parameters: int | None = None
    """Of all files in the repository: vision tower and layers for multi-token prediction included."""
    repository_parameters_source: str | None = None
    config: dict[str, Any]
    """The keys of config.json that decide sizes; for a model with a vision tower often the text model's
    alone."""


def known_configs() -> tuple[str, ...]:
    """Aliases that have a config."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.json")))


def known_config(alias: str) -> KnownConfig | None:
    """The architecture of a model of the catalogue; None where it ships none."""
    if alias not in known_configs():
        return None
    return KnownConfig.model_validate(json.loads((FOLDER / f"{alias}.json").read_text(encoding="utf-8")))
