"""Check the tensors of packed layers by the files' headers: whether each layer has all its parts, and which
tensors that no model has a place for carry nothing."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from quantlab.formats.safetensors import header, weight_files

_PARTS = (
    *("qweight", "qzeros", "scales", "g_idx", "weight_packed", "weight_scale", "weight_scale_inv"),
    *("weight", "weight_format", "SCB"),
)
_OF_4_BITS = ".weight."
"""bitsandbytes hangs a 4-bit weight's parts on its name: `up_proj.weight.absmax`."""
_QUANT_STATE = "quant_state"
_SCALES = ".weight.absmax"
_NESTED = ("nested_absmax", "nested_quant_map")


def parts_missing(folder: Path) -> list[str]:
    """Parts that one packed layer lacks and most others have, by the name that the tensor would have."""
    layers: dict[str, set[str]] = collections.defaultdict(set)
    for path in weight_files(folder):
        for name in header(path):
            if owner := _owner(name):
                layers[owner[0]].add(owner[1])
    packed = {layer: parts for layer, parts in layers.items() if parts - {"weight"}}
    if not packed:
        return []
    usual = collections.Counter(frozenset(parts) for parts in packed.values()).most_common(1)[0][0]
    lacking = [f"{layer}.{part}" for layer, parts in packed.items() for part in usual - parts]
    return sorted(lacking)


def nested_missing(folder: Path) -> list[str]:
    """Scales of bitsandbytes that were quantized once more, to bytes, and whose own scales are not in the
    files: it would take the bytes for the scales themselves."""
    entries = {name: entry for path in weight_files(folder) for name, entry in header(path).items()}
    doubled = (
        n.removesuffix(_SCALES) for n, e in entries.items() if n.endswith(_SCALES) and e["dtype"] == "U8"
    )
    wanted = (f"{layer}.weight.{part}" for layer in doubled for part in _NESTED)
    return sorted(name for name in wanted if name not in entries)


def _owner(name: str) -> tuple[str, str] | None:
    """The layer that a tensor belongs to, and which part of it the tensor is."""
    layer, found, part = name.partition(_OF_4_BITS)
    if found:
        return layer, f"weight.{_QUANT_STATE if part.startswith(_QUANT_STATE) else part}"
    layer, _, part = name.rpartition(".")
    return (layer, part) if part in _PARTS else None


def without_effect(folder: Path, names: Iterable[str]) -> set[str]:
    """Which of the names are biases of zeros: auto-gptq wrote one beside every layer."""
    wanted = {name for name in names if name.endswith(".bias")}
    return {name for name, values in _values(folder, wanted) if not bool(values.any())}


def _values(folder: Path, names: set[str]) -> Iterator[tuple[str, Any]]:
    from safetensors import safe_open

    for path in weight_files(folder):
        if there := names & set(header(path)):
            with safe_open(path, framework="pt") as file:
                yield from ((name, file.get_tensor(name)) for name in there)
