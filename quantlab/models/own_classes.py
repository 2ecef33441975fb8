"""Keep transformers' own classes where a library puts others in their place."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_MAPPING = "get_checkpoint_conversion_mapping"


@contextmanager
def own_classes(model_type: str) -> Iterator[None]:
    """Let GPTQModel load a model of this type inside, and put transformers' classes back at the end.

    Its Defuser (`defuser.replace_fused_blocks`) writes blocks with one layer per expert over transformers'
    own, and its names of stored tensors over theirs, for the whole process: whatever is built there later has
    other layers than in a fresh one."""
    places = [*_replaced(model_type), ("transformers.conversion_mapping", _MAPPING)]
    before: list[tuple[Any, str, Any]] = []
    for name, attribute in places:
        module = importlib.import_module(name)
        before.append((module, attribute, getattr(module, attribute)))
    try:
        yield
    finally:
        for module, attribute, value in before:
            setattr(module, attribute, value)


def _replaced(model_type: str) -> list[tuple[str, str]]:
    """Module and name of each class that Defuser replaces."""
    from defuser.model_registry import MODEL_CONFIG, PATCH

    pairs = MODEL_CONFIG.get(model_type, {}).get(PATCH.REPLACE_MODULE, [])
    split = (str(original).rpartition(".") for original, _ in pairs)
    return [(module, name) for module, _, name in split]
