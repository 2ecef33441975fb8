"""Lay packed zero points out as compressed-tensors stores them, and check those of experts.

The library packs a layer's zero points along its outputs where it writes asymmetric weights (W4A16_ASYM).
Where it lays a model out without memory, as transformers has it do before it reads the files, it leaves them
unpacked (0.20): none of the files' then fits."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from quantlab.models.loading import wrong_tensors

_WORD = 32
"""Bits of one number of the packed tensor."""


@contextmanager
def zeros_packed() -> Iterator[None]:
    """Let compressed-tensors lay zero points out packed, for the block."""
    import torch
    from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor

    kind: Any = PackedQuantizationCompressor
    usual = kind.__dict__["compress"]

    def compress(cls: Any, state_dict: dict[str, Any], scheme: Any) -> dict[str, Any]:
        made: dict[str, Any] = usual.__func__(cls, state_dict, scheme)
        zeros, arguments = made.get("weight_zero_point"), scheme.weights
        if arguments.symmetric or arguments.strategy not in _packed_strategies() or zeros is None:
            return made
        if zeros.is_meta and zeros.dtype != torch.int32:
            shape = packed_shape(zeros.shape, arguments.num_bits)
            made["weight_zero_point"] = torch.empty(shape, dtype=torch.int32, device="meta")
        return made

    kind.compress = classmethod(compress)
    try:
        yield
    finally:
        kind.compress = usual


def wrong_zeros(entries: Mapping[str, Any], pattern: str, scheme: Any) -> str:
    """What is wrong with the zero points of experts that are stored one by one, in words; empty where nothing
    is. `entries` are the headers of the files, `pattern` is a matrix of every expert, such as
    `mlp.experts.*.up_proj`.

    transformers checks what layers hold, not what experts are unpacked of: a zero point per row would be
    taken for each of its groups."""
    arguments = scheme.weights
    if arguments.symmetric or arguments.strategy not in _packed_strategies():
        return ""
    of_expert = re.compile(rf"(?:.*\.)?{re.escape(pattern)}\.weight_packed".replace(r"\*", r"\d+"))
    missing, mismatched = [], []
    for name in filter(of_expert.fullmatch, entries):
        layer = name.removesuffix(".weight_packed")
        scales, zeros = (entries.get(f"{layer}.{part}") for part in ("weight_scale", "weight_zero_point"))
        if zeros is None:
            missing.append(f"{layer}.weight_zero_point")
        elif scales is not None:
            rows, groups = entries[name]["shape"][0], scales["shape"][-1]
            expected = packed_shape((rows, groups), arguments.num_bits)
            if tuple(zeros["shape"]) != expected:
                mismatched.append((f"{layer}.weight_zero_point", zeros["shape"], expected))
    return wrong_tensors({"missing_keys": missing, "unexpected_keys": (), "mismatched_keys": mismatched})


def packed_shape(shape: Sequence[int], bits: int) -> tuple[int, ...]:
    """The shape in which zero points (outputs, groups) are stored: as many words as hold all outputs."""
    *before, rows, groups = shape
    return (*before, math.ceil(rows * bits / _WORD), groups)


def _packed_strategies() -> Sequence[str]:
    from compressed_tensors.compressors.pack_quantized.base import PACK_ZP_STRATS

    return tuple(PACK_ZP_STRATS)
