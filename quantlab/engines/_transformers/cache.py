"""Build transformers' key-value cache, ordinary or quantized, count its bytes, and compute logits through
it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from quantlab.errors import CellFailure

if TYPE_CHECKING:
    import torch

CHUNK_TOKENS = 32
"""Logits through a quantized cache are computed so many tokens at a time: within a chunk keys and values are
exact, as the newest ones also are in a decode of transformers' own."""
_PACKAGES = {"hqq": "hqq", "quanto": "optimum-quanto"}


class CacheBytes(NamedTuple):
    """What a cache holds."""

    kv_cache_bytes: int
    state_bytes: int


def new_cache(cache: str | None, config: Any) -> Any:
    """An empty cache of the type, None for the model's own. Raises CellFailure where its package is not
    installed."""
    if cache is None:
        return None
    from transformers.cache_utils import QuantizedCache

    backend, settings = _backend(cache)
    try:
        return QuantizedCache(backend, config.get_text_config(decoder=True), **settings)
    except ImportError as error:
        package = _PACKAGES[backend]
        raise CellFailure(
            "not_installed", f"a {cache} cache needs {package}, which is not installed: pip install {package}"
        ) from error
    except (ValueError, NotImplementedError) as error:
        said = " ".join(str(error).split())[:200]
        raise CellFailure(
            "unsupported", f"transformers has no {cache} cache for this model: {said}"
        ) from error


def _backend(cache: str) -> tuple[str, dict[str, int]]:
    """QuantizedCache's name of the backend and its settings; HQQ takes other axes than quanto, whose are the
    defaults."""
    if cache == "fp8":
        return cache, {}
    name = cache.rstrip("0123456789")
    return name, {"nbits": int(cache.removeprefix(name))} | (
        {"axis_key": 1, "axis_value": 1} if name == "hqq" else {}
    )


def chunked_logits(model: Any, ids: torch.Tensor, cache: Any) -> torch.Tensor:
    """Logits (length, vocabulary) of token ids (1, length), each chunk reading those before it from the
    cache."""
    import torch

    parts = [
        model(input_ids=part, past_key_values=cache, use_cache=True).logits[0].float()
        for part in ids.split(CHUNK_TOKENS, dim=1)
    ]
    logits = torch.cat(parts)
    if not logits.isfinite().all():
        reason = (
            "the logits through the quantized cache are not finite: its values went beyond the scale of its"
            " first tokens"
        )
        raise CellFailure("unsupported", reason)
    return logits


def cache_bytes(cache: Any) -> CacheBytes:
    """Bytes of the tensors that a cache holds: keys and values, and recurrent or convolution states."""
    kv, state = dict[int, int](), dict[int, int]()
    for layer in getattr(cache, "layers", None) or []:
        for name, value in vars(layer).items():
            for tensor in _tensors(value):
                storage = tensor.untyped_storage()
                (state if _is_state(name) else kv)[storage.data_ptr()] = storage.nbytes()
    return CacheBytes(sum(kv.values()), sum(state.values()))


def _is_state(name: str) -> bool:
    """Linear attention's own: `conv_states`, `recurrent_states`."""
    return "conv" in name or "recurrent" in name or "ssm" in name


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """Tensors in a value, also inside tuples, dicts and quantized tensors that are made of several."""
    import torch

    if isinstance(value, torch.Tensor):
        inner = getattr(value, "__tensor_flatten__", None)
        if inner is None or type(value) is torch.Tensor:
            yield value
            return
        for name in inner()[0]:
            yield from _tensors(getattr(value, name))
    elif isinstance(value, dict):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)
