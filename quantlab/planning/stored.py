"""Compute the bytes of a release stored quantized, from its quantization_config: `as stored` in a plan.

GPTQ, AWQ, auto-round and bitsandbytes by the layouts of the methods; else a weight's bits with its scales:
one per block, per group of a row or per row. A single scale of a whole matrix is not counted. Which matrices
are quantized: linears and experts, less those that the config keeps, layer by layer, by the names of modules.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from fnmatch import translate
from typing import NamedTuple

from quantlab import methods
from quantlab.architecture.parameters import Matrix, ParameterCount
from quantlab.architecture.release import StoredFormat
from quantlab.architecture.weight_bytes import WeightBytes

_PLAIN_BITS = 16
_LAYER = re.compile(r"(?<=\b)((?:layers|h|blocks)\.)\*")
_OUTER = re.compile(r"^(?:(?:model|language_model)\.)+(?=layers\.)")
"""Where classes of one model differ in what a module is called."""


class _Settings(NamedTuple):
    """What a layout asks for."""

    group_size: int
    double_quantization: bool


def stored_bytes(counted: ParameterCount, stored: StoredFormat) -> WeightBytes | None:
    """Bytes of the release's tensors; None where the model's matrices are not known."""
    if not counted.tensors:
        return None
    is_kept = _named(stored.kept)
    is_wanted = _named(stored.only) if stored.only else lambda _: True
    packed = {id(m): _packed(m, is_kept, is_wanted) for m in counted.tensors}
    inside = sum(packed[id(m)] * _matrix_bytes(m, stored) for m in counted.tensors if packed[id(m)])
    weights = sum(packed[id(m)] * m.out_features * m.in_features for m in counted.tensors)
    outside = (counted.total - weights) * _PLAIN_BITS // 8 + counted.buffer_bytes
    return WeightBytes(
        bytes_total=inside + outside,
        bytes_quantized=inside,
        bytes_unquantized=outside,
        bits_per_weight=8 * (inside + outside) / counted.total,
        quantized_bits_per_weight=8 * inside / weights if weights else None,
        how="formula",
        expert_bytes=sum(_all_bytes(m, packed[id(m)], stored) for m in counted.tensors if m.role == "expert"),
        embedding_bytes=0 if counted.tied else counted.embedding * _PLAIN_BITS // 8,
        notes=("The release's own format, by its quantization_config; not compared with its files.",),
    )


def _all_bytes(matrix: Matrix, packed: int, stored: StoredFormat) -> int:
    plain = (matrix.how_many - packed) * matrix.out_features * matrix.in_features * _PLAIN_BITS // 8
    return plain + (packed * _matrix_bytes(matrix, stored) if packed else 0)


def _matrix_bytes(matrix: Matrix, stored: StoredFormat) -> int:
    """One quantized matrix with its scales."""
    out, into = matrix.out_features, matrix.in_features
    if matrix.role == "expert" and stored.expert_bits:
        return math.ceil(out * into * stored.expert_bits / 8)
    method = methods.marked().get(stored.method.lower())
    if method and method.lays_out_releases:
        settings = _Settings(stored.group_size or -1, stored.double_quantization)
        size = method.matrix_bytes(matrix, int(stored.bits), settings)
        if size is not None:
            return size
    scales = 0
    if stored.block:
        scales = math.ceil(out / stored.block[0]) * math.ceil(into / stored.block[1])
    elif stored.group_size:
        scales = out * math.ceil(into / stored.group_size)
    elif stored.per_row:
        scales = out
    zeros = stored.bits if stored.zero_points else 0
    return math.ceil((out * into * stored.bits + scales * (stored.scale_bits + zeros)) / 8)


def _packed(matrix: Matrix, is_kept: Callable[[str], bool], is_wanted: Callable[[str], bool]) -> int:
    """How many of equal matrices are quantized."""
    if matrix.role not in ("linear", "expert"):
        return 0
    layers = matrix.layers or (0,)
    names = [_LAYER.sub(rf"\g<1>{layer}", matrix.name, count=1).replace("*", "0") for layer in layers]
    return matrix.how_many * sum(is_wanted(name) and not is_kept(name) for name in names) // len(layers)


def _named(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Whether a list of modules names a module or one that it lies in: whole parts of dotted names, `*` for
    anything, and regular expressions after `re:`."""
    literal, searched = [], []
    for pattern in patterns:
        if pattern.startswith("re:"):
            searched += _compiled(pattern[3:])
        elif re.search(r"[*?\[]", pattern):
            glob = _inner(pattern)
            searched += [
                each
                for inside in (glob, f"*.{glob}", f"{glob}.*", f"*.{glob}.*")
                for each in _compiled(translate(inside))
            ]
        else:
            literal.append(f".{_inner(pattern)}.")

    def names(module: str) -> bool:
        inner = _inner(module)
        tried = dict.fromkeys((module, inner, f"model.{inner}"))
        return any(each in f".{inner}." for each in literal) or any(
            regex.match(name) for regex in searched for name in tried
        )

    return names


def _inner(name: str) -> str:
    return _OUTER.sub("", name.strip("."))


def _compiled(pattern: str) -> list[re.Pattern[str]]:
    """None for an expression that is none."""
    try:
        return [re.compile(pattern)]
    except re.error:
        return []
