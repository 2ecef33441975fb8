"""Add to a config.json what llama.cpp's converter reads and transformers 5 leaves out when it saves.

The converter reads the fields of the release; transformers folds some of them into others. Each is computed
from what the file says, and one that is there already stays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from quantlab.errors import CellFailure

Config = Mapping[str, Any]
LLAMA4_CHUNK = 8192
_RATIOS = {"sliding_attention": 0, "compressed_sparse_attention": 4, "heavily_compressed_attention": 128}
"""Of DeepSeek V4's layers, as configuration_deepseek_v4.py reads them."""


def as_released(config: Config) -> dict[str, Any]:
    """The config with the release's fields beside transformers'. Raises CellFailure for what llama.cpp would
    run as another model."""
    if chunk := _other_chunk(config):
        raise CellFailure(
            "unsupported",
            f"llama.cpp attends in chunks of {LLAMA4_CHUNK:,} tokens in every Llama 4 model, and this one's"
            f" are of {chunk:,}: run it with transformers",
        )
    kind = str(config.get("model_type"))
    add = _ADDED.get(kind)
    said = {**(add(config) if add else {}), **config}
    layers = said.get("num_hidden_layers", 0)
    said |= {key: [said[key]] * layers for key in _BY_LAYER.get(kind, ()) if isinstance(said[key], int)}
    if name := _ARCHITECTURES.get(kind):
        said["architectures"] = [name]
    if types := _LAYER_TYPES.get(kind):
        said["layer_types"] = [types.get(each, each) for each in said.get("layer_types") or ()]
    return said


def _other_chunk(config: Config) -> int | None:
    """The chunk of a Llama 4 model where it is another than llama.cpp's (llama-model.cpp, n_swa)."""
    text = config.get("text_config") or config
    chunk = text.get("attention_chunk_size") if text.get("model_type") == "llama4_text" else None
    return chunk if chunk and chunk != LLAMA4_CHUNK else None


def _gpt2(config: Config) -> dict[str, Any]:
    return {"n_ctx": config.get("n_positions", 1024)}


def _deepseek_v4(config: Config) -> dict[str, Any]:
    kinds, ropes = config.get("layer_types") or (), config.get("rope_parameters") or {}
    rates = config.get("compress_rates") or {}
    compressed = ropes.get("compress") or {}
    scaling = (
        {"rope_scaling": {**compressed, "type": "yarn"}} if compressed.get("rope_type") == "yarn" else {}
    )
    return {
        "num_hash_layers": (config.get("mlp_layer_types") or ()).count("hash_moe"),
        "compress_ratios": [rates.get(kind, _RATIOS.get(kind, 0)) for kind in kinds],
        "qk_rope_head_dim": _rotary(config, compressed),
        **scaling,
    }


def _deepseek_v3(config: Config) -> dict[str, Any]:
    """Without it llama.cpp takes softmax, which DeepSeek V2 has."""
    return {"scoring_func": "sigmoid"}


def _minimax_m2(config: Config) -> dict[str, Any]:
    """Without the function of its scores llama.cpp ends the process."""
    rotary = _rotary(config, config.get("rope_parameters") or {})
    return {"rotary_dim": rotary, "scoring_func": "sigmoid"}


def _hunyuan_v1_moe(config: Config) -> dict[str, Any]:
    """transformers makes one shared expert, and all of one size."""
    return {"moe_intermediate_size": config.get("intermediate_size"), "num_shared_expert": 1, "moe_topk": 1}


def _kimi_linear(config: Config) -> dict[str, Any]:
    kinds = config.get("layer_types") or ()
    return {
        "scoring_func": "sigmoid",
        "first_k_dense_replace": (config.get("mlp_layer_types") or ()).count("dense"),
        "num_shared_experts": config.get("n_shared_experts"),
        "linear_attn_config": {
            "num_heads": config.get("linear_num_heads"),
            "head_dim": config.get("linear_head_dim"),
            "short_conv_kernel_size": config.get("linear_conv_kernel_dim"),
            "kda_layers": [i + 1 for i, kind in enumerate(kinds) if kind == "linear_attention"],
            "full_attn_layers": [i + 1 for i, kind in enumerate(kinds) if kind == "full_attention"],
        },
    }


def _rotary(config: Config, rope: Config) -> int:
    """How many columns of a head are rotated."""
    return round(float(config["head_dim"]) * float(rope.get("partial_rotary_factor", 1.0)))


_ADDED: dict[str, Callable[[Config], dict[str, Any]]] = {
    "gpt2": _gpt2,
    "deepseek_v3": _deepseek_v3,
    "deepseek_v4": _deepseek_v4,
    "minimax_m2": _minimax_m2,
    "hunyuan_v1_moe": _hunyuan_v1_moe,
    "kimi_linear": _kimi_linear,
}
_BY_LAYER = {"hunyuan_v1_moe": ("moe_intermediate_size", "num_shared_expert", "moe_topk")}
"""Fields that the converter reads as a list with a number for each layer, as the release has them."""
_LAYER_TYPES = {"granitemoehybrid": {"linear_attention": "mamba", "full_attention": "attention"}}
"""The release's words for kinds of layers, by transformers'."""
_ARCHITECTURES = {"mistral4": "Ministral3ForCausalLM"}
"""The class by which the converter finds a type that it knows as part of a release alone (mistral3.py)."""
