"""Convert a GGUF file's header to the config.json of its model. Reads only the header, with the standard
library.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from quantlab.errors import QuantlabError

MAGIC = b"GGUF"
_SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
_STRING, _ARRAY, _LONGEST_STRING, _MOST_ITEMS, _DEEPEST = 8, 9, 2**24, 2**24, 8
_TYPES: Mapping[str, str] = {
    "qwen2moe": "qwen2_moe",
    "qwen3moe": "qwen3_moe",
    "qwen3next": "qwen3_next",
    "qwen35": "qwen3_5_text",
    "qwen35moe": "qwen3_5_moe_text",
    "gemma3": "gemma3_text",
    "gemma3n": "gemma3n_text",
    "gemma4": "gemma4_text",
    "llama4": "llama4_text",
    "deepseek2": "deepseek_v3",
    "gpt-oss": "gpt_oss",
    "mistral3": "ministral3",
    "command-r": "cohere",
    "olmoe": "olmoe",
    "glm4moe": "glm4_moe",
}
"""llama.cpp's architectures where transformers calls them otherwise."""
_KEYS: Mapping[str, str] = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "intermediate_size": "feed_forward_length",
    "moe_intermediate_size": "expert_feed_forward_length",
    "num_experts": "expert_count",
    "num_experts_per_tok": "expert_used_count",
    "sliding_window": "attention.sliding_window",
    "max_position_embeddings": "context_length",
    "kv_lora_rank": "attention.kv_lora_rank",
    "q_lora_rank": "attention.q_lora_rank",
    "qk_rope_head_dim": "rope.dimension_count",
    "full_attention_interval": "full_attention_interval",
    "linear_conv_kernel_dim": "ssm.conv_kernel",
}


class GgufModel(NamedTuple):
    """What a GGUF file says of its model."""

    config: dict[str, Any]
    parameters: int
    """Elements of all its tensors."""
    file_bytes: int


def is_gguf(path: Path) -> bool:
    """Whether a file begins as GGUF files do."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == MAGIC


def read_header(path: Path) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
    """A GGUF file's keys and the shapes of its tensors. Raises QuantlabError where its header cannot be
    read."""
    try:
        with path.open("rb") as file:
            return _header(file)
    except (struct.error, UnicodeDecodeError, ValueError) as error:
        raise QuantlabError(
            f"{path} is truncated or damaged: its header cannot be read ({error}); download it again"
        ) from None


def read_gguf(path: Path) -> GgufModel:
    """The model of a GGUF file. Raises QuantlabError where its header cannot be read or describes no language
    model."""
    metadata, shapes = read_header(path)
    kind = metadata.get("general.architecture")
    if not isinstance(kind, str):
        raise QuantlabError(f"{path} names no architecture, so it holds no model")
    config = {key: metadata[f"{kind}.{name}"] for key, name in _KEYS.items() if f"{kind}.{name}" in metadata}
    if "kv_lora_rank" not in config:
        config.pop("qk_rope_head_dim", None)
    if isinstance(config.get("num_key_value_heads"), list):
        config["num_key_value_heads"] = max(config["num_key_value_heads"])
    embedding = shapes.get("token_embd.weight")
    config |= {"model_type": _TYPES.get(kind, kind), "tie_word_embeddings": "output.weight" not in shapes}
    if embedding:
        config["vocab_size"] = embedding[-1]
    return GgufModel(config, sum(_product(shape) for shape in shapes.values()), path.stat().st_size)


def _product(shape: tuple[int, ...]) -> int:
    product = 1
    for dimension in shape:
        product *= dimension
    return product


def _header(file: BinaryIO) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
    if file.read(4) != MAGIC:
        raise ValueError("it does not begin with GGUF")
    version, tensors, pairs = struct.unpack("<IQQ", file.read(20))
    if version not in (2, 3) or max(tensors, pairs) > _MOST_ITEMS:
        raise ValueError(f"version {version} with {tensors} tensors")
    metadata = {}
    for _ in range(pairs):
        key = _text(file)
        metadata[key] = _value(file, _number(file, "<I"))
    shapes = {}
    for _ in range(tensors):
        name, dimensions = _text(file), _number(file, "<I")
        if dimensions > 8:
            raise ValueError(f"a tensor of {dimensions} dimensions")
        shapes[name] = tuple(_number(file, "<Q") for _ in range(dimensions))
        file.read(12)  # type and offset
    return metadata, shapes


def _number(file: BinaryIO, form: str) -> Any:
    return struct.unpack(form, file.read(struct.calcsize(form)))[0]


def _bytes(file: BinaryIO) -> bytes:
    length = _number(file, "<Q")
    if length > _LONGEST_STRING:
        raise ValueError(f"a string of {length} bytes")
    data = file.read(length)
    if len(data) < length:
        raise ValueError("it ends within a string")
    return data


def _text(file: BinaryIO) -> str:
    return _bytes(file).decode()


def _value(file: BinaryIO, kind: int, depth: int = 0) -> Any:
    if kind == _STRING:
        return _bytes(file).decode(errors="replace")
    if kind != _ARRAY:
        if kind not in _SCALARS:
            raise ValueError(f"a value of type {kind}")
        return _number(file, _SCALARS[kind])
    inner, length = _number(file, "<I"), _number(file, "<Q")
    if length > _MOST_ITEMS or depth > _DEEPEST:
        raise ValueError(f"a list of {length} values, {depth} lists around it")
    return [_value(file, inner, depth + 1) for _ in range(length)]
