"""List the parts of a recipe that decide each stage's result: what dvc.yaml tracks and a record is hashed by.

A record carries the hash of its stage's part as the recipe had it when the stage began, so that a record of
other settings is never taken for one of the recipe as it is now."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantlab.errors import QuantlabError
from quantlab.recipe import Recipe, read_recipe
from quantlab.records import BY_DVC, VARIANT

TRACKED: Mapping[str, tuple[str, ...]] = {
    "prepare": ("source", "calibration", "evaluation"),
    "reference": ("reference",),
    **{stage.name: stage.tracked for stage in BY_DVC if stage.tracked},
}
"""By stage, the keys as dvc.yaml writes them (a test compares the two)."""


def settings_of(recipe: Recipe, stage: str, variant: str | None = None) -> dict[str, Any]:
    """The stage's part of a recipe, as the recipe's file has it: a default that is not written is left
    out."""
    written = recipe.model_dump(mode="json", exclude_unset=True)
    part = {key: written.get(key) for key in TRACKED[stage] if key != VARIANT}
    return part | (
        {f"variants.{variant}": recipe.variants.get(variant or "")} if VARIANT in TRACKED[stage] else {}
    )


def settings_sha256(recipe: Recipe, stage: str, variant: str | None = None) -> str | None:
    """Hash of the stage's part of a recipe; None for a stage that reads nothing of it that DVC tracks."""
    if stage not in TRACKED:
        return None
    return hashlib.sha256(
        json.dumps(settings_of(recipe, stage, variant), sort_keys=True).encode()
    ).hexdigest()


def require_same_settings(root: Path, began_with: Recipe, stage: str) -> None:
    """Raise QuantlabError where the stage's part of the recipe is no longer what the stage began with."""
    now = read_recipe(root / "recipes" / f"{began_with.model}.yaml")
    if settings_sha256(now, stage) != settings_sha256(began_with, stage):
        raise changed_meanwhile(now, stage)


def changed_meanwhile(now: Recipe, stage: str, variant: str | None = None) -> QuantlabError:
    """The error for a recipe that was changed under a stage: DVC would note the new settings beside the old
    result."""
    keys = ", ".join(settings_of(now, stage, variant))
    of = f"{now.model}--{variant}" if variant else now.model
    return QuantlabError(
        f"recipes/{now.model}.yaml was changed while {stage} of {of} ran (one of {keys}): what it made is of"
        " the settings before and does not count as current; run it again"
    )
