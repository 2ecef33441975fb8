"""Compute the bytes of GGUF types' blocks, and the type that a file type gives each tensor.

Sizes: GGML_QUANT_SIZES of the PyPI package gguf 0.19. Rules: llama_tensor_get_type and its fallback in
llama.cpp's llama-quant.cpp (the copy in llama-cpp-python 0.3.36), for a file that is quantized with an
importance matrix."""

from __future__ import annotations

from typing import NamedTuple

TENSOR_TYPES = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
}
"""Name, weights in a block and its bytes, by the number that a GGUF file's header gives a tensor's type."""
_NOT_MADE = ("Q8_1", "Q8_K", "I8", "I16", "I32", "I64", "F64", "TQ1_0", "TQ2_0", "MXFP4", "NVFP4", "Q1_0")
"""Types that no plan gives a tensor."""
BLOCKS = {name: (weights, size) for name, weights, size in TENSOR_TYPES.values() if name not in _NOT_MADE}
"""Weights in a block, and its bytes, of the types that a plan may give a tensor."""

_FALLBACK = dict.fromkeys(
    ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS"), "IQ4_NL"
) | {
    "Q2_K": "Q4_0",
    "Q3_K": "Q4_0",
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
}
_BASE = (
    {"Q2_K_S": "Q2_K", "IQ3_XS": "IQ3_S", "IQ3_M": "IQ3_S", "IQ2_S": "IQ2_XS", "IQ2_M": "IQ2_S"}
    | dict.fromkeys(("Q3_K_S", "Q3_K_M", "Q3_K_L"), "Q3_K")
    | dict.fromkeys(("Q4_K_S", "Q4_K_M"), "Q4_K")
    | dict.fromkeys(("Q5_K_S", "Q5_K_M"), "Q5_K")
)
"""The type that most tensors of a file type have, where its name is another."""

_LOW = ("IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ1_S", "IQ1_M")
_HEAD_Q5 = (*_LOW, "IQ3_XXS")
_EMBEDDING = dict.fromkeys(("IQ2_XXS", "IQ2_XS", "IQ1_S", "IQ1_M"), "Q2_K") | dict.fromkeys(
    ("IQ2_S", "IQ2_M", "IQ3_XXS"), "IQ3_S"
)
_OUTPUT = {"Q2_K": "Q3_K", "IQ3_XXS": "IQ3_S", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K", "IQ3_M": "Q4_K"}
_OUTPUT_LOW = {"IQ1_S": "IQ2_XXS", "IQ1_M": "IQ2_XXS", "IQ2_S": "IQ3_S", "IQ2_M": "IQ3_S"}
_OUTPUT_8_EXPERTS = (
    "Q2_K",
    "IQ3_XS",
    "IQ3_XXS",
    "Q3_K_S",
    "Q3_K_M",
    "IQ4_NL",
    "Q4_K_S",
    "Q4_K_M",
    "IQ3_S",
    "IQ3_M",
    "IQ4_XS",
)


class Mix(NamedTuple):
    """A file type on one model."""

    file_type: str
    layers: int
    experts: int
    query_per_kv: int
    seventy_billion: bool
    """Whether llama.cpp takes the model for its 70B: a Llama or Qwen2 of 80 layers."""
    tied: bool

    @property
    def base(self) -> str:
        return _BASE.get(self.file_type, self.file_type)


def known(file_type: str) -> bool:
    """Whether the bytes of this file type can be computed here."""
    return _BASE.get(file_type, file_type) in BLOCKS


def fitted(kind: str, columns: int) -> str:
    """The type itself, or llama.cpp's substitute where its blocks do not divide a row."""
    if columns % BLOCKS[kind][0] == 0:
        return kind
    other = _FALLBACK.get(kind, kind)
    return other if columns % BLOCKS[other][0] == 0 else "F16"


def row_bytes(kind: str, columns: int) -> int:
    """Bytes of one row."""
    weights, size = BLOCKS[kind]
    return columns // weights * size


def head_type(mix: Mix, columns: int) -> str:
    """Of the output matrix, which is the embedding where the two are tied."""
    if columns % BLOCKS[mix.base][0]:
        return "Q8_0"
    if mix.file_type in _HEAD_Q5:
        return "Q5_K"
    return "Q8_0" if mix.base == "Q8_0" else "Q6_K"


def embedding_type(mix: Mix) -> str:
    """Of an embedding that is not the output matrix."""
    return _EMBEDDING.get(mix.file_type, mix.base)


def block_type(mix: Mix, category: str, index: int) -> str:
    """Of a matrix in a block; `index` is its place among its like (attn_v) or its layer's number (ffn_down).

    Categories are llama.cpp's: attn_v (with attn_qkv), attn_k, attn_q, attn_output, ffn_down, ffn_gate,
    ffn_up, other."""
    if mix.file_type in _LOW:
        return _low(mix, category, index)
    rule = {
        "attn_v": _value,
        "attn_k": _key,
        "attn_q": _query,
        "ffn_down": _down,
        "attn_output": _attention_output,
    }.get(category)
    if rule:
        return rule(mix, index)
    middle = mix.layers // 8 <= index < 7 * mix.layers // 8
    return (
        "IQ3_XXS" if category in ("ffn_gate", "ffn_up") and mix.file_type == "IQ3_XS" and middle else mix.base
    )


def _more(i: int, n: int) -> bool:
    """The layers that the M mixes give more bits: the first and last eighth, and every third between."""
    return i < n // 8 or i >= 7 * n // 8 or (i - n // 8) % 3 == 2


def _value(mix: Mix, i: int) -> str:
    name, grouped, kind = mix.file_type, mix.query_per_kv >= 4, mix.base
    if name in ("Q2_K", "Q2_K_S", "IQ3_XXS", "IQ3_XS", "IQ3_S"):
        kind = "Q4_K" if grouped else {"Q2_K": "Q3_K"}.get(name, mix.base)
    elif name in ("IQ3_M", "Q3_K_M", "Q3_K_L"):
        kind = "Q5_K" if name == "Q3_K_L" or (name == "Q3_K_M" and i < 2) else "Q4_K"
    elif name in ("IQ4_NL", "IQ4_XS"):
        kind = "Q5_K" if grouped else mix.base
    elif name in ("Q4_K_M", "Q5_K_M"):
        kind = "Q6_K" if _more(i, mix.layers) else mix.base
    elif name == "Q4_K_S":
        kind = "Q5_K" if i < 4 else mix.base
    if mix.seventy_billion and kind in ("Q3_K", "Q4_K"):
        kind = "Q5_K"
    return "Q8_0" if mix.experts == 8 else kind


def _key(mix: Mix, i: int) -> str:
    return "Q8_0" if mix.experts == 8 else _query(mix, i)


def _query(mix: Mix, i: int) -> str:
    return {"IQ3_XS": "IQ3_XXS", "IQ3_XXS": "IQ2_S"}.get(mix.file_type, mix.base)


def _down(mix: Mix, i: int) -> str:
    name, n = mix.file_type, mix.layers
    if name == "Q2_K":
        return "Q3_K"
    if name == "Q3_K_M":
        return "Q5_K" if i < n // 16 else "Q4_K"
    if name == "Q3_K_L":
        return "Q5_K"
    if name in ("Q4_K_M", "Q5_K_M"):
        return "Q6_K" if _more(i, n) else mix.base
    first = {"Q2_K_S": "Q4_K", "IQ3_M": "Q4_K", "Q4_K_S": "Q5_K", "Q4_0": "Q4_1", "Q5_0": "Q5_1"}
    if name == "IQ3_M" and mix.experts == 8 and _more(i, n):
        return "Q4_K"
    return first[name] if name in first and i < n // 8 else mix.base


def _attention_output(mix: Mix, i: int) -> str:
    if mix.experts == 8:
        return "Q5_K" if mix.file_type in _OUTPUT_8_EXPERTS else mix.base
    return _OUTPUT.get(mix.file_type, mix.base)


def _low(mix: Mix, category: str, i: int) -> str:
    better = "IQ3_S" if mix.file_type in ("IQ2_S", "IQ2_M") else "Q2_K"
    if category == "attn_v":
        return "Q4_K" if mix.query_per_kv >= 4 or mix.experts >= 4 else better
    if category == "attn_k" and mix.experts == 8:
        return "Q4_K"
    if category == "ffn_down" and i < mix.layers // 8:
        return better
    if category == "attn_output":
        return "Q5_K" if mix.experts == 8 else _OUTPUT_LOW.get(mix.file_type, mix.base)
    return mix.base
