"""Count what a checkpoint stores: bytes per tensor, bits per weight, quantized layers.

Bits per weight = all stored bits (codes, scales, zeros, indices, codebooks, unquantized tensors) / parameters
of the unquantized model. Layers are counted from the checkpoint's own tensors, so that names which the
unquantized model does not have (experts stored one by one) count too. Only the files' headers are read."""

from __future__ import annotations

import collections
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from quantlab.formats.gguf_types import is_plain
from quantlab.formats.safetensors import FLOATS, header, weight_files

_CODES = re.compile(r"\.(qweight|weight|weight_packed|weight_shape|\w+_blocks|(gate_up|gate|up|down)_proj)$")
"""Tensors that hold a layer's quantized weights; `weight_shape` stands beside `weight_packed`."""
_NOT_WEIGHTS = ("bias",)
_EXPERT = re.compile(r"\.experts\.")
_ROUTER = re.compile(r"(^|\.)(gate|router|wg)(\.(gate|layer|linear|proj|wg|router))?$")


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
    names: frozenset[str] = frozenset()
    """The quantized layers' names, as the checkpoint has them; empty for a GGUF file."""

    @property
    def experts(self) -> int:
        """Quantized matrices of routed experts that are stored one by one."""
        return sum(_EXPERT.search(name) is not None for name in self.names)

    @property
    def routers(self) -> tuple[str, ...]:
        """Quantized layers that choose the experts: there should be none."""
        return tuple(sorted(name for name in self.names if _ROUTER.search(name)))


def safetensors(folder: Path) -> list[Tensor]:
    """Every tensor of the model in a folder, from the headers of its files. Raises QuantlabError where one is
    damaged."""
    tensors = []
    for path in weight_files(folder):
        for name, entry in header(path).items():
            begin, end = entry["data_offsets"]
            tensors.append(Tensor(name, entry["dtype"], end - begin, math.prod(entry["shape"])))
    return tensors


def of_safetensors(checkpoint: Iterable[Tensor], source: Iterable[Tensor], bits: int = 4) -> Stored:
    """Count a checkpoint's tensors: a layer is quantized where it holds codes that the source does not.

    `bits` is the width of codes in 32-bit words, for layers that the source has under another name."""
    before = {tensor.name: tensor for tensor in source}
    tensors = list(checkpoint)
    layers: dict[str, list[Tensor]] = collections.defaultdict(list)
    for tensor in tensors:
        layers[_layer(tensor.name)].append(tensor)
    quantized = {
        name: parts for name, parts in layers.items() if any(_is_codes(part, before) for part in parts)
    }
    return Stored(
        sum(t.bytes for t in tensors),
        sum(t.bytes for parts in quantized.values() for t in parts if not t.name.endswith(_NOT_WEIGHTS)),
        sum(_parameters(name, parts, before, bits) for name, parts in quantized.items()),
        len(quantized),
        dict(collections.Counter(t.dtype for t in tensors)),
        frozenset(quantized),
    )


def _layer(name: str) -> str:
    """The layer that a tensor belongs to: `a.b` of `a.b.weight.absmax` and of `a.b.qweight`."""
    owner, weight, _ = name.partition(".weight.")
    return owner if weight else name.rpartition(".")[0]


def _is_codes(tensor: Tensor, before: Mapping[str, Tensor]) -> bool:
    same = before.get(tensor.name)
    return (
        tensor.dtype not in FLOATS
        and _CODES.search(tensor.name) is not None
        and (same is None or same.dtype != tensor.dtype)
    )


def _parameters(name: str, parts: list[Tensor], before: Mapping[str, Tensor], bits: int) -> int:
    """Weights of a quantized layer: the source's where it has the layer, else by the size of the codes."""
    if f"{name}.weight" in before:
        return before[f"{name}.weight"].elements
    codes = [part for part in parts if _is_codes(part, before) and not part.name.endswith("weight_shape")]
    halves = any(part.name.endswith((".absmax", "_scales")) for part in parts)
    return sum(_weights(part, bits, halves) for part in codes)


def _weights(codes: Tensor, bits: int, halves: bool) -> int:
    """Weights that a tensor of codes holds: words of 32 bits, bytes of two halves, or one to a byte."""
    if codes.dtype in ("I32", "U32"):
        return codes.elements * 32 // bits
    return codes.elements * 2 if halves and codes.dtype == "U8" else codes.elements


def of_gguf(path: Path) -> Stored:
    """The same for a GGUF file: a matrix is quantized where its type is no float and no whole number."""
    from quantlab.formats.gguf import stored_tensors

    tensors = stored_tensors(path)
    quantized = [t for t in tensors if not is_plain(t.type)]
    return Stored(
        sum(t.bytes for t in tensors),
        sum(t.bytes for t in quantized),
        sum(t.elements for t in quantized),
        sum(t.name.startswith("blk.") for t in quantized),
        dict(collections.Counter(t.type for t in tensors)),
    )
