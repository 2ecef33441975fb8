"""Describe what each layer of a GGUF file keeps for a sequence, by the tensors that the layer has.

Heads and their widths follow from the shapes of the key and value tensors; windows, recurrent states and
latents from the keys of the header, as llama.cpp reads them (llama-hparams.cpp and models/*.cpp, the copy
in llama-cpp-python 0.3.36)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from quantlab.architecture.gguf_header import GgufHeader
from quantlab.architecture.layers import Layer

_BLOCK = re.compile(r"blk\.(\d+)\.(.+)")
_PERIODS: Mapping[str, int] = {
    "cohere2": 4,
    "afmoe": 4,
    "exaone4": 4,
    "exaone-moe": 4,
    "gemma2": 2,
    "gemma3": 6,
    "gemma3n": 5,
    "gpt-oss": 2,
    "olmo2": 4,
    "llama4": 4,
    "mellum": 4,
    "plamo3": 8,
}
"""Every n-th layer attends to everything, where the header does not say which ones do."""
_FIRST_OF: Mapping[str, int] = {"cohere2moe": 4, "smallthinker": 4, "laguna": 4}
"""The same, with the first of n."""
_WINDOWS = {"llama4": 8192, "gemma2": 4096, "exaone4": 4096, "exaone-moe": 128, "smallthinker": 4096}
"""Windows of architectures whose header need not give one."""
_DELTA_NETS = ("qwen3next", "qwen35", "qwen35moe")
_LATENT, _KEYS, _FUSED = "attn_kv_a_mqa.weight", "attn_k.weight", "attn_qkv.weight"


class Keys:
    """The keys of a header that describe its architecture."""

    def __init__(self, header: GgufHeader) -> None:
        self.architecture = str(header.metadata.get("general.architecture"))
        self._metadata = header.metadata

    def get(self, name: str) -> Any:
        """The value; None where the header has none."""
        return self._metadata.get(f"{self.architecture}.{name}")

    def number(self, name: str, usual: int = 0) -> int:
        """A whole number; of one for each layer the largest."""
        value = self.get(name)
        values = [n for n in value if isinstance(n, int)] if isinstance(value, list) else [value]
        return max((n for n in values if isinstance(n, int)), default=usual)

    def of_layer(self, name: str, layer: int, usual: int = 0) -> int:
        """A number that may differ between layers."""
        value = self.get(name)
        if isinstance(value, list):
            value = value[layer] if layer < len(value) else None
        return int(value) if isinstance(value, int) else usual


class GgufLayers(NamedTuple):
    """The layers, and what is not certain of them."""

    layers: tuple[Layer, ...]
    doubts: tuple[str, ...]


def blocks_of(header: GgufHeader) -> dict[int, dict[str, tuple[int, ...]]]:
    """The shapes of each layer's tensors, by their names in the layer."""
    blocks: dict[int, dict[str, tuple[int, ...]]] = {}
    for name, tensor in header.tensors.items():
        if match := _BLOCK.fullmatch(name):
            blocks.setdefault(int(match[1]), {})[match[2]] = tensor.shape
    return blocks


def gguf_layers(header: GgufHeader) -> GgufLayers:
    """What each layer keeps, without the layers for multi-token prediction, which llama.cpp does not run by
    itself."""
    keys, blocks = Keys(header), blocks_of(header)
    count = keys.number("block_count") - keys.number("nextn_predict_layers")
    doubts: dict[str, None] = {}
    slides = _sliding(keys, count)
    layers = [_layer(keys, blocks.get(i, {}), i, slides[i], doubts) for i in range(count)]
    shared = keys.number("attention.shared_kv_layers")
    if keys.architecture == "gemma3n":  # llama.cpp knows both of its sizes by their depth
        shared = max(count - 20, 0)
    if shared:
        layers[count - shared :] = [Layer(kind="none")] * shared
    return GgufLayers(tuple(layers), tuple(doubts))


def _sliding(keys: Keys, count: int) -> list[bool]:
    """Which layers attend to a window alone."""
    window, pattern = _window(keys), keys.get("attention.sliding_window_pattern")
    if not window:
        return [False] * count
    if isinstance(pattern, list):
        return [bool(pattern[i]) if i < len(pattern) else False for i in range(count)]
    if first := _FIRST_OF.get(keys.architecture):
        return [i % first != 0 for i in range(count)]
    usual = _PERIODS.get(keys.architecture)
    if usual is None:  # llama.cpp reads no window of other architectures
        return [False] * count
    period = pattern if isinstance(pattern, int) and pattern > 0 else usual
    return [i % period < period - 1 for i in range(count)]


def _window(keys: Keys) -> int:
    return keys.number("attention.sliding_window", _WINDOWS.get(keys.architecture, 0))


def _layer(
    keys: Keys, block: Mapping[str, tuple[int, ...]], layer: int, slides: bool, doubts: dict[str, None]
) -> Layer:
    if not block:
        doubts["The header lists no tensors of some layers: they are taken as attention, by its keys."] = None
        return _attention(keys, block, layer, slides)
    if any("compressor" in name for name in block):
        doubts["The cache of layers that compress keys is taken as attention's, the most it can be."] = None
    recurrent = _recurrent(keys, block)
    kv_heads = keys.of_layer("attention.head_count_kv", layer, keys.number("attention.head_count"))
    delta = any(name.startswith("ssm_conv1d_q") for name in block) or (
        keys.architecture in _DELTA_NETS and recurrent is not None
    )
    attends = _LATENT in block or ((_KEYS in block or _FUSED in block) and kv_heads > 0 and not delta)
    if recurrent is None:
        if not attends and not _feeds_alone(block):
            doubts["Some layers have tensors that are not known here: their cache is left out."] = None
        return _attention(keys, block, layer, slides) if attends else Layer(kind="none")
    if not attends:
        return recurrent
    attention = _attention(keys, block, layer, slides)
    return recurrent.model_copy(
        update={
            "kind": "hybrid",
            "kv_heads": attention.kv_heads,
            "key_dim": attention.key_dim,
            "value_dim": attention.value_dim,
        }
    )


def _feeds_alone(block: Mapping[str, tuple[int, ...]]) -> bool:
    return all(name.startswith(("ffn_", "attn_norm", "post_", "exp_probs_b")) for name in block)


def _attention(keys: Keys, block: Mapping[str, tuple[int, ...]], layer: int, slides: bool) -> Layer:
    heads = keys.of_layer("attention.head_count", layer, 1) or 1
    kv_heads = keys.of_layer("attention.head_count_kv", layer, heads) or heads
    if _LATENT in block and "attn_k_b.weight" in block:  # llama.cpp keeps the latent
        rank = keys.number("attention.kv_lora_rank")
        indexer = block.get("indexer.attn_k.weight")
        return Layer(
            kind="mla_indexed" if indexer else "mla",
            kv_heads=1,
            key_dim=rank,
            value_dim=block[_LATENT][-1] - rank,
            index_dim=indexer[-1] if indexer else 0,
            index_topk=keys.number("attention.indexer.top_k") or None,
        )
    usual = keys.number("embedding_length") // heads
    key_dim = keys.number("attention.key_length", usual)
    value_dim = keys.number("attention.value_length", key_dim)
    if slides:
        key_dim = keys.number("attention.key_length_swa", key_dim)
        value_dim = keys.number("attention.value_length_swa", value_dim)
    if _KEYS in block and block[_KEYS][-1] % kv_heads == 0:
        key_dim = block[_KEYS][-1] // kv_heads
        values = block.get("attn_v.weight")
        value_dim = values[-1] // kv_heads if values else key_dim  # Gemma 4's full layers take keys as values
    kind = ("chunked" if keys.architecture == "llama4" else "sliding") if slides else "full"
    return Layer.model_validate(
        {
            "kind": kind,
            "kv_heads": kv_heads,
            "key_dim": key_dim,
            "value_dim": value_dim,
            "window": _window(keys) if slides else None,
        }
    )


def _recurrent(keys: Keys, block: Mapping[str, tuple[int, ...]]) -> Layer | None:
    """The state of a layer, as llama.cpp sizes it; None for a layer without one."""
    hidden = keys.number("embedding_length")
    if "shortconv.conv.weight" in block:
        return Layer(kind="conv", conv_channels=hidden, conv_kernel=keys.number("shortconv.l_cache", 3))
    if any(name.startswith("time_mix_") for name in block):  # RWKV
        size, shifts = keys.number("wkv.head_size", 64), keys.number("token_shift_count", 2)
        return _state("mamba", hidden // size, hidden * size, hidden, shifts * hidden, 2)
    if not any(name.startswith("ssm_") for name in block):
        return None
    kernel = keys.number("ssm.conv_kernel", 4)
    if dim := keys.number("kda.head_dim"):
        heads = keys.number("attention.head_count")
        return _state("mamba", heads, heads * dim * dim, heads * dim, 3 * heads * dim, kernel)
    inner, size = keys.number("ssm.inner_size"), keys.number("ssm.state_size")
    channels = inner + 2 * keys.number("ssm.group_count") * size
    kind = "delta_net" if keys.architecture in _DELTA_NETS else "mamba"
    heads = keys.number("ssm.time_step_rank") if keys.number("ssm.group_count") else 1
    return _state(kind, heads or 1, inner * size, inner, channels, kernel)


def _state(kind: str, heads: int, elements: int, values: int, channels: int, kernel: int) -> Layer:
    return Layer.model_validate(
        {
            "kind": kind,
            "state_heads": heads,
            "state_elements": elements,
            "value_channels": values,
            "conv_channels": channels,
            "conv_kernel": kernel,
        }
    )
