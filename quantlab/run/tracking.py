"""Check that a recipe has every key that dvc.yaml tracks: DVC itself names no file and no remedy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from quantlab.errors import QuantlabError
from quantlab.frozen import Frozen
from quantlab.parsing import read_yaml
from quantlab.recipe import Recipe


def models(root: Path) -> list[str]:
    """The models of params.yaml; none where there is no such file."""
    path = root / "params.yaml"
    return list((read_yaml(path) or {}).get("models") or []) if path.is_file() else []


def check_recipes(root: Path) -> None:
    """Raise QuantlabError where the recipe of a model in params.yaml lacks a key that dvc.yaml tracks. No
    pipeline, no check."""
    if not ((root / "dvc.yaml").is_file() and (root / "params.yaml").is_file()):
        return
    pipeline, params = (read_yaml(root / name) for name in ("dvc.yaml", "params.yaml"))
    if not isinstance(params, dict | None) or not isinstance((params or {}).get("models") or [], list):
        raise QuantlabError(
            "params.yaml must be a mapping with a list of models: mend it, or let `quantlab run` write one"
        )
    params = params or {}
    for model in params.get("models") or []:
        name = f"recipes/{model}.yaml"
        if lacking := missing(pipeline, params, model, read_yaml(root / name)):
            lines = ", ".join(f"`{_line(key)}`" for key in lacking)
            raise QuantlabError(
                f"{name} lacks {', '.join(lacking)}, which dvc.yaml tracks: add {lines} (or other values)"
                " to it"
            )


def missing(pipeline: Any, params: dict[str, Any], model: str, recipe: Any) -> list[str]:
    """The keys of a model's recipe that a pipeline tracks and the recipe does not have, such as `engine` or
    `variants.gguf-4`."""
    variants = [
        cell["variant"] for cell in (params.get("cells") or {}).values() if cell.get("model") == model
    ]
    keys = dict.fromkeys(full for key in _tracked(pipeline) for full in _for_each(key, variants))
    return [key for key in keys if not _has(recipe, key)]


def _tracked(pipeline: Any) -> Iterator[str]:
    """Keys as dvc.yaml writes them, those of recipes alone."""
    for stage in ((pipeline or {}).get("stages") or {}).values():
        for entry in stage.get("do", stage).get("params") or []:
            for path, keys in entry.items() if isinstance(entry, dict) else ():
                yield from keys if path.startswith("recipes/") else ()


def _for_each(key: str, variants: list[str]) -> list[str]:
    place = "${item.variant}"
    return [key.replace(place, variant) for variant in variants] if place in key else [key]


def _has(recipe: Any, key: str) -> bool:
    head, _, rest = key.partition(".")
    return isinstance(recipe, dict) and head in recipe and (not rest or _has(recipe[head], rest))


def _line(key: str) -> str:
    """A key with its default, as YAML on one line."""
    head, _, rest = key.partition(".")
    field = Recipe.model_fields.get(head)
    if field is None or field.is_required():
        return f"{head}: ..."
    default = field.get_default()
    value = (
        {rest: {}} if rest else default.model_dump(mode="json") if isinstance(default, Frozen) else default
    )
    return (
        str(yaml.safe_dump({head: value}, default_flow_style=True, sort_keys=False, width=float("inf")))
        .strip()
        .removeprefix("{")[:-1]
    )
