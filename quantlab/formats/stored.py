"""Count what a checkpoint stores: bytes per tensor, bits per weight, quantized layers.

Bits per weight = all stored bits (codes, scales, zeros, indices, codebooks, unquantized tensors) / parameters
of the unquantized model. Read from the files' headers; no weights are loaded."""

from __future__ import annotations

import collections
import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from quantlab.formats.safetensors import header, weight_files

_PLAIN = {"F64", "F32", "F16", "BF16"}
_NOT_WEIGHTS = ("bias",)


class Tensor(NamedTuple):
    """One stored tensor."""

    name: str
    dtype: str
    bytes: int
    elements: int


class Stored(NamedTuple):
    """A checkpoint's content in bytes."""

    total_bytes: int
    quantized_bytes: int
    quantized_parameters: int
    quantized_layers: int
    types: dict[str, int]


def safetensors(folder: Path) -> list[Tensor]:
    """Every tensor of the model in a folder, from the headers of its files. Raises QuantlabError where one is
    damaged."""
    tensors = []
    for path in weight_files(folder):
        for name, entry in header(path).items():
            begin, end = entry["data_offsets"]
            tensors.append(Tensor(name, entry["dtype"], end - begin, math.prod(entry["shape"])))
    return tensors


def of_safetensors(checkpoint: Iterable[Tensor], source: Iterable[Tensor]) -> Stored:
    """Compare a checkpoint's tensors with the source's: a layer is quantized where it is stored in another
    way."""
    original = {t.name.removesuffix(".weight"): t.elements for t in source if t.name.endswith(".weight")}
    tensors = list(checkpoint)
    layers: dict[str, list[Tensor]] = collections.defaultdict(list)
    for tensor in tensors:
        owner = _owner(tensor.name, original)
        if owner:
            layers[owner].append(tensor)
    quantized = {owner: parts for owner, parts in layers.items() if not _plain(parts)}
    return Stored(
        sum(t.bytes for t in tensors),
        sum(t.bytes for parts in quantized.values() for t in parts if not t.name.endswith(_NOT_WEIGHTS)),
        sum(original[owner] for owner in quantized),
        len(quantized),
        dict(collections.Counter(t.dtype for t in tensors)),
    )


def _owner(name: str, layers: dict[str, int]) -> str | None:
    """The layer that a tensor belongs to: `a.b.weight.absmax` and `a.b.qweight` belong to `a.b`."""
    while "." in name:
        name = name.rpartition(".")[0]
        if name in layers:
            return name
    return None


def _plain(parts: list[Tensor]) -> bool:
    weights = [t for t in parts if not t.name.endswith(_NOT_WEIGHTS)]
    return len(weights) <= 1 and all(t.dtype in _PLAIN for t in weights)


def of_gguf(path: Path) -> Stored:
    """The same for a GGUF file: a matrix is quantized where its type is not F32, F16 or BF16."""
    from quantlab.formats.gguf import stored_tensors

    tensors = stored_tensors(path)
    quantized = [t for t in tensors if t.type not in _PLAIN]
    return Stored(
        sum(t.bytes for t in tensors),
        sum(t.bytes for t in quantized),
        sum(t.elements for t in quantized),
        sum(t.name.startswith("blk.") for t in quantized),
        dict(collections.Counter(t.type for t in tensors)),
    )
