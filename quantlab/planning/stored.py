"""Compute the bytes of a release stored quantized, from its quantization_config: `as stored` in a plan.

GPTQ, AWQ, auto-round and bitsandbytes by the layouts of the methods; else a weight's bits with its scales:
one per block, per group of a row or per row. A single scale of a whole matrix is not counted. Which matrices
are quantized: linears and experts, less those that the config keeps, layer by layer, by the names of modules.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from fnmatch import translate
from functools import lru_cache
from typing import NamedTuple

from quantlab import methods
from quantlab.architecture.parameters import Matrix, ParameterCount, Role
from quantlab.architecture.release import LayerFormat, StoredFormat
from quantlab.architecture.weight_bytes import WeightBytes

_PLAIN_BITS = 16
_LAYER = re.compile(r"(?<=\b)((?:layers|h|blocks)\.)\*")
_OUTER = re.compile(r"^(?:(?:model|language_model)\.)+(?=layers\.)")
"""Where classes of one model differ in what a module is called."""


_AS_IN_TRANSFORMERS = {"ffn": "mlp", "attn": "self_attn", "head": "lm_head"}
_DEEPSEEK = re.compile(r"(?<![\w])(?:ffn|attn|head)(?![\w])")


class _Settings(NamedTuple):
    """What a layout asks for."""

    group_size: int
    double_quantization: bool


def stored_bytes(counted: ParameterCount, stored: StoredFormat) -> WeightBytes | None:
    """Bytes of the release's tensors; None where the model's matrices are not known."""
    if not counted.tensors:
        return None
    parts = {id(m): _parts(m, stored) for m in counted.tensors}
    inside = sum(part.bytes for each in parts.values() for part in each)
    weights = sum(
        part.how_many * m.out_features * m.in_features for m in counted.tensors for part in parts[id(m)]
    )
    later = _prediction_bytes(counted, stored)
    wider = counted.vectors * (stored.vector_bits - _PLAIN_BITS) // 8
    outside = (counted.total - weights) * _PLAIN_BITS // 8 + wider + counted.buffer_bytes + later
    notes = ["The release's own format, by its quantization_config; not compared with its files."]
    if later:
        notes.append(
            f"Its layers for multi-token prediction are in it, about {later / 1e9:.2f} GB, which an engine"
            " loads only to predict several tokens at once."
        )
    return WeightBytes(
        bytes_total=inside + outside,
        bytes_quantized=inside,
        bytes_unquantized=outside,
        bits_per_weight=8 * (inside + outside - later) / counted.total,
        quantized_bits_per_weight=8 * inside / weights if weights else None,
        how="formula",
        expert_bytes=sum(_all_bytes(m, parts[id(m)]) for m in counted.tensors if m.role == "expert"),
        embedding_bytes=0 if counted.tied else counted.embedding * _PLAIN_BITS // 8,
        notes=tuple(notes),
    )


def formats_of(matrix: Matrix, stored: StoredFormat) -> dict[LayerFormat, int]:
    """The formats of equal matrices, and how many of them have each; those in 16 bits are left out."""
    layers = matrix.layers or (0,)
    each = matrix.how_many // len(layers)
    counts: dict[LayerFormat, int] = {}
    for layer in layers:
        name = _LAYER.sub(rf"\g<1>{layer}", matrix.name, count=1).replace("*", "0")
        if (form := _format_of(name, matrix.role, stored)) is not None:
            counts[form] = counts.get(form, 0) + each
    return counts


class _Part(NamedTuple):
    """Equal matrices that one format holds."""

    how_many: int
    bytes: int


def _parts(matrix: Matrix, stored: StoredFormat) -> list[_Part]:
    return [
        _Part(many, many * _matrix_bytes(matrix, form, stored.method))
        for form, many in formats_of(matrix, stored).items()
    ]


def _all_bytes(matrix: Matrix, parts: Sequence[_Part]) -> int:
    plain = matrix.how_many - sum(part.how_many for part in parts)
    return plain * matrix.out_features * matrix.in_features * _PLAIN_BITS // 8 + sum(p.bytes for p in parts)


def _matrix_bytes(matrix: Matrix, form: LayerFormat, marked: str) -> int:
    """One quantized matrix with its scales."""
    out, into = matrix.out_features, matrix.in_features
    method = methods.marked().get(marked.lower())
    if method and method.lays_out_releases:
        settings = _Settings(form.group_size or -1, form.double_quantization)
        size = method.matrix_bytes(matrix, int(form.bits), settings)
        if size is not None:
            return size
    scales = 0
    if form.block:
        scales = math.ceil(out / form.block[0]) * math.ceil(into / form.block[1])
    elif form.group_size:
        scales = out * math.ceil(into / form.group_size)
    elif form.per_row:
        scales = out
    zeros = form.bits if form.zero_points else 0
    return math.ceil((out * into * form.bits + scales * (form.scale_bits + zeros)) / 8)


def _format_of(name: str, role: Role, stored: StoredFormat) -> LayerFormat | None:
    """What holds for one module; None for one in 16 bits."""
    if _named(stored.plain)(name):
        return None
    if not _named(stored.kept)(name):
        for form in stored.formats:
            if _holds(form, name, role):
                return form
    return next((form for form in stored.rest if _holds(form, name, role)), None)


def _holds(form: LayerFormat, name: str, role: Role) -> bool:
    """Whether a format holds for a module; embeddings, heads and routers it must name outright."""
    if role not in ("linear", "expert"):
        return name in form.only
    if form.experts_alone and role != "expert":
        return False
    return not form.only or _named(form.only)(name)


def _prediction_bytes(counted: ParameterCount, stored: StoredFormat) -> int:
    """Layers for multi-token prediction: in 16 bits where they are kept or not listed, else as the last
    layer's matrices."""
    weights = counted.by_role.get("mtp", 0)
    names = (f"model.layers.{counted.layers}.mlp", "mtp.layers.0.mlp")
    kept = any(_named(stored.kept)(name) for name in names)
    if not weights or ((kept or all(form.only for form in stored.formats)) and not stored.rest):
        return weights * _PLAIN_BITS // 8
    as_before = stored.model_copy(update={"formats": stored.rest or stored.formats, "kept": (), "rest": ()})
    last = [m for m in counted.tensors if m.layers and m.layers[-1] == counted.layers - 1]
    size = sum(m.out_features * m.in_features * m.how_many / len(m.layers) for m in last)
    taken = sum(_all_bytes(m, _parts(m, as_before)) / len(m.layers) for m in last)
    return round(weights * taken / size) if size else weights * _PLAIN_BITS // 8


@lru_cache(maxsize=64)
def _named(patterns: tuple[str, ...]) -> Callable[[str], bool]:
    """Whether a list of modules names a module or one that it lies in: whole parts of dotted names, `*` for
    anything, and regular expressions after `re:`."""
    literal, searched = [], []
    for pattern in (own for given in patterns for own in _spellings(given)):
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


def _spellings(pattern: str) -> Iterator[str]:
    """A pattern, and the same with DeepSeek's names of modules as transformers has them."""
    yield pattern
    other = _DEEPSEEK.sub(lambda match: _AS_IN_TRANSFORMERS[match[0]], pattern)
    if other != pattern and not pattern.startswith("re:"):
        yield other


def _inner(name: str) -> str:
    return _OUTER.sub("", name.strip("."))


def _compiled(pattern: str) -> list[re.Pattern[str]]:
    """None for an expression that is none."""
    try:
        return [re.compile(pattern)]
    except re.error:
        return []
