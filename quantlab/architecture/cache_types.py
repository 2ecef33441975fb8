"""Check the type of the key-value cache, a setting that every variant may have: `cache: q8_0`.

llama.cpp's are its own types; a quantized one needs flash attention, which is then on for that variant alone.
transformers' are its `QuantizedCache`: `fp8` is built in, `quanto...` needs optimum-quanto, `hqq...` needs
hqq."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from quantlab.errors import QuantlabError, unknown

CACHES: Mapping[str, tuple[str, ...]] = {
    "gguf": ("f16", "bf16", "f32", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"),
    "safetensors": ("fp8", "hqq8", "hqq4", "hqq3", "hqq2", "quanto4", "quanto2"),
}
"""By the checkpoint's format."""
BYTES_PER_VALUE: Mapping[str, Fraction] = {
    "float32": Fraction(4),
    "float16": Fraction(2),
    "bfloat16": Fraction(2),
    "fp8": Fraction(1),
    "int8": Fraction(1),
    "q8_0": Fraction(34, 32),
    "q5_1": Fraction(24, 32),
    "q5_0": Fraction(22, 32),
    "q4_1": Fraction(20, 32),
    "q4_0": Fraction(18, 32),
    "iq4_nl": Fraction(18, 32),
}
"""Of llama.cpp's types, bytes of a block of 32 values with its scales (ggml-common.h); HQQ's and quanto's are
not in it, because they keep the last tokens in full."""
_OTHER_NAMES: Mapping[str, str] = {
    "fp32": "float32",
    "f32": "float32",
    "fp16": "float16",
    "f16": "float16",
    "bf16": "bfloat16",
    "fp8_e4m3": "fp8",
    "fp8_e5m2": "fp8",
}


def bytes_per_value(cache_type: str) -> Fraction | None:
    """Bytes of one cached value, by any of the type's names; None for a type that has no fixed size, or is
    not known."""
    lowered = cache_type.lower()
    return BYTES_PER_VALUE.get(_OTHER_NAMES.get(lowered, lowered))


def cache_type_name(name: str) -> str:
    """The type's name in BYTES_PER_VALUE. Raises QuantlabError for an unknown one."""
    lowered = _OTHER_NAMES.get(name.lower(), name.lower())
    if lowered not in BYTES_PER_VALUE:
        raise unknown("cache dtype", name, (*BYTES_PER_VALUE, *_OTHER_NAMES))
    return lowered


def check_cache(checkpoint_format: str, cache: object) -> str:
    """The type itself. Raises QuantlabError where the format's engine has no such one."""
    known = CACHES.get(checkpoint_format, ())
    if not isinstance(cache, str) or cache not in known:
        raise QuantlabError(
            f"there is no cache {cache!r} for {checkpoint_format} checkpoints: use {', '.join(known)}, or"
            " leave it out"
        )
    return cache


def is_quantized(cache: str | None) -> bool:
    """Whether keys and values are stored in fewer bits than they are computed in."""
    if cache is None:
        return False
    size = bytes_per_value(cache)
    return size is None or size < 2
