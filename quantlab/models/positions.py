"""Check whether a recipe's windows of text fit into the positions that a model was made for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantlab.errors import QuantlabError
from quantlab.recipe import Recipe

_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")


def positions_of(config: Mapping[str, Any]) -> int | None:
    """The positions that a config.json names, its text part's first; None where it names none."""
    inner = config.get("text_config")
    for part in (inner if isinstance(inner, dict) else {}, config):
        for key in _KEYS:
            if isinstance(part.get(key), int) and part[key] > 0:
                return int(part[key])
    return None


def check_windows(recipe: Recipe, positions: int | None) -> None:
    """Raise QuantlabError where windows are longer than the model's positions: what it says beyond them is
    noise."""
    for name, spec in (("evaluation", recipe.evaluation), ("calibration", recipe.calibration)):
        if positions and spec.length > positions:
            raise QuantlabError(
                f"{name}.length {spec.length} of the recipe is more than the {positions} positions of"
                f" {recipe.model}: set {name}: {{windows: {spec.windows}, length: {positions}}} or fewer in"
                " the recipe"
            )
