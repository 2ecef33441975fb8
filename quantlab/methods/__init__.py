"""Quantize models: one file per method, named as the method.

A file holds one `METHOD`, an object of a class that extends `Method` (`_contract.py` says what each attribute
means; `fp8.py` is the shortest example). Another package brings one by an entry point of the group
`quantlab.methods`. Nobody outside this folder knows a method's name: planner, stages, report and serving
commands ask its METHOD."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from quantlab.architecture.cache_types import check_cache
from quantlab.errors import QuantlabError
from quantlab.methods._contract import Grid, InMemory, Job, Method, Needs, NoSettings, Serving
from quantlab.names import Variant, parse_variant
from quantlab.recipe import Recipe, explain, read_recipe
from quantlab.registry import Registry

__all__ = [
    "Grid",
    "InMemory",
    "Job",
    "Method",
    "Needs",
    "NoSettings",
    "Serving",
    "cache_in",
    "check_variants",
    "checked_recipe",
    "effective",
    "load",
    "marked",
    "names",
    "only_reads",
    "settings_in",
    "settings_of",
]

_REGISTRY = Registry(__name__, __path__, "method", Method, "METHOD")  # type: ignore[type-abstract]


def names() -> tuple[str, ...]:
    """Every method's name."""
    return _REGISTRY.names()


def load(name: str) -> Method:
    """The method of that name. Raises QuantlabError for an unknown name."""
    return _REGISTRY.load(name)


def marked() -> dict[str, Method]:
    """The methods by their marks in a checkpoint's quantization_config, in lower case."""
    return {mark: method for name in names() for method in (load(name),) for mark in method.marks}


def only_reads(method: Method) -> str:
    """Say that a method quantizes nothing and only reads other people's checkpoints."""
    return f"{method.name} only reads checkpoints that others made: name one with --checkpoint"


def effective(variant: Variant, settings: BaseModel) -> dict[str, Any]:
    """What a variant's settings come to at its width; those of somebody else's checkpoint are only where it
    lies."""
    return (
        settings.model_dump(mode="json")
        if variant.external
        else load(variant.method).effective(settings, variant.bits)
    )


def settings_in(recipe: Recipe, variant: Variant) -> Any:
    """A variant's settings in a recipe, checked by its method. Raises QuantlabError."""
    return settings_of(variant, recipe.given(variant))


def cache_in(recipe: Recipe, variant: Variant) -> str | None:
    """A variant's type of key-value cache in a recipe; None for the engine's usual one. Raises QuantlabError
    for an unknown one."""
    given = recipe.variants.get(variant.slug, {}).get("cache")
    return None if given is None else check_cache(load(variant.method).format, given)


def check_variants(recipe: Recipe, origin: str) -> Recipe:
    """The recipe itself. Raises QuantlabError for a variant whose method or settings there are not."""
    for slug in recipe.variants:
        try:
            settings_in(recipe, parse_variant(slug))
            cache_in(recipe, parse_variant(slug))
        except QuantlabError as error:
            raise QuantlabError(f"{origin}: variants.{slug}: {error}") from None
    return recipe


def checked_recipe(path: Path) -> Recipe:
    """Read a recipe file and check it with the settings of its variants. Raises QuantlabError."""
    return check_variants(read_recipe(path), str(path))


def settings_of(variant: Variant, given: Mapping[str, Any]) -> Any:
    """Check a variant's settings. Raises QuantlabError for unknown keys or wrong types."""
    from quantlab.methods import _foreign

    kind: type[BaseModel] = _foreign.Settings if variant.external else load(variant.method).Settings
    try:
        return kind.model_validate(dict(given), strict=True)
    except ValidationError as error:
        known = ", ".join([*kind.model_fields, "cache"])
        raise QuantlabError(f"{explain(error)} (settings of {variant.method}: {known})") from None
