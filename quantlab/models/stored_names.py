"""Tell which parameter of a transformers model each tensor of its files becomes.

transformers renames tensors while it loads them, and puts some together: the experts of a layer, stored one
by one, are one parameter of its class. These are its own rules (core_model_loading.py of transformers
5.23)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple


class Place(NamedTuple):
    """What a stored tensor becomes."""

    parameter: str
    """The parameter or buffer of the model, or the first of several."""
    renamed_only: bool
    """Whether it is the whole of it, under another name at most."""


def places_of(model: Any, names: Iterable[str]) -> dict[str, Place]:
    """What each tensor by its name becomes; names that have no place in the model are left out."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import (
        WeightConverter,
        WeightRenaming,
        dot_natural_key,
        rename_source_key,
    )

    rules = get_model_conversion_mapping(model)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    there = model.state_dict()
    found = {}
    for name in sorted(names, key=dot_natural_key):  # in its order: some rules wait for another's first match
        for known in ((renamings, converters), ([], [])):
            renamed, converter = rename_source_key(name, *known, model.base_model_prefix, there)
            if renamed in there:
                found[name] = Place(renamed, converter is None)
                break
    return found
