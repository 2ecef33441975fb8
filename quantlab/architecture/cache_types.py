"""The key-value cache's type: a setting that every variant may have beside its method's own, `cache: q8_0`.

llama.cpp's are its own types; a quantized one needs flash attention, which is then on for that variant alone.
transformers' are its `QuantizedCache`: `fp8` is built in, `quanto...` needs optimum-quanto, `hqq...` needs hqq.
"""

from __future__ import annotations

from collections.abc import Mapping

from quantlab.errors import QuantlabError

CACHES: Mapping[str, tuple[str, ...]] = {
    "gguf": ("f16", "bf16", "f32", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"),
    "safetensors": ("fp8", "hqq8", "hqq4", "hqq3", "hqq2", "quanto4", "quanto2"),
}
"""By the checkpoint's format."""
BITS_PER_VALUE: Mapping[str, float] = {
    "float32": 32,
    "f32": 32,
    "float16": 16,
    "f16": 16,
    "bfloat16": 16,
    "bf16": 16,
    "q8_0": 8.5,
    "q5_1": 6,
    "q5_0": 5.5,
    "q4_1": 5,
    "q4_0": 4.5,
    "iq4_nl": 4.5,
    "fp8": 8,
}
"""Of llama.cpp's types, bytes of a block of 32 values with its scales (ggml-common.h); the others are not in it, because
they keep the last tokens in full."""


def check_cache(checkpoint_format: str, cache: object) -> str:
    """The type itself. Raises QuantlabError where the format's engine has no such one."""
    known = CACHES.get(checkpoint_format, ())
    if not isinstance(cache, str) or cache not in known:
        raise QuantlabError(f"there is no cache {cache!r} for {checkpoint_format} checkpoints: use {', '.join(known)}, or leave it out")
    return cache


def is_quantized(cache: str | None) -> bool:
    """Whether keys and values are stored in fewer bits than they are computed in."""
    return cache is not None and BITS_PER_VALUE.get(cache, 0) < 16
