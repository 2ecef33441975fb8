"""Headers of GGUF files with the keys and the shapes of real releases, without their data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

Shapes = Iterator[tuple[str, tuple[int, ...]]]


def write_header(
    path: Path, architecture: str, keys: Mapping[str, Any], shapes: Shapes, kind: str = "Q4_K"
) -> Path:
    """A file that ends where the tensors' data would begin: matrices of one type, the rest in F32."""
    import numpy as np
    from gguf import GGMLQuantizationType, GGUFWriter

    writer = GGUFWriter(path, architecture)
    for key, value in keys.items():
        if isinstance(value, list):
            writer.add_array(f"{architecture}.{key}", value)
        elif isinstance(value, str):
            writer.add_string(f"{architecture}.{key}", value)
        else:
            writer.add_uint32(f"{architecture}.{key}", value)
    for name, shape in shapes:
        plain = len(shape) == 1 or "norm" in name or shape[0] % 256 or "ffn_gate_inp" in name
        number = GGMLQuantizationType.F32 if plain else GGMLQuantizationType[kind]
        weights, size = (1, 4) if plain else {"Q4_K": (256, 144), "Q8_0": (32, 34)}[kind]
        whole = int(np.prod(shape, dtype=np.int64)) // weights * size
        columns = shape[0] // weights * size
        bytes_shape = (*reversed(shape[1:]), columns if not plain else shape[0])
        if plain:
            writer.add_tensor_info(name, tuple(reversed(shape)), np.dtype(np.float32), whole)
        else:
            writer.add_tensor_info(name, bytes_shape, np.dtype(np.uint8), whole, raw_dtype=number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    return path


def _ends(hidden: int, vocabulary: int, head: bool = False) -> Shapes:
    yield "token_embd.weight", (hidden, vocabulary)
    yield "output_norm.weight", (hidden,)
    if head:
        yield "output.weight", (hidden, vocabulary)


def _network(block: str, hidden: int, inner: int, suffix: str = "", gated: bool = True) -> Shapes:
    for name in ("ffn_gate", "ffn_up") if gated else ("ffn_up",):
        yield f"{block}.{name}{suffix}.weight", (hidden, inner)
    yield f"{block}.ffn_down{suffix}.weight", (inner, hidden)


def _experts(block: str, hidden: int, inner: int, many: int, gated: bool = True) -> Shapes:
    yield f"{block}.ffn_gate_inp.weight", (hidden, many)
    for name in ("ffn_gate", "ffn_up") if gated else ("ffn_up",):
        yield f"{block}.{name}_exps.weight", (hidden, inner, many)
    yield f"{block}.ffn_down_exps.weight", (inner, hidden, many)


def _attention(block: str, hidden: int, heads: int, kv: int, dim: int, values: bool = True) -> Shapes:
    yield f"{block}.attn_q.weight", (hidden, heads * dim)
    yield f"{block}.attn_k.weight", (hidden, kv * dim)
    if values:
        yield f"{block}.attn_v.weight", (hidden, kv * dim)
    yield f"{block}.attn_output.weight", (heads * dim, hidden)


def _mamba(block: str, hidden: int, heads: int, inner: int, groups: int, state: int) -> Shapes:
    channels = inner + 2 * groups * state
    yield f"{block}.ssm_in.weight", (hidden, inner + channels + heads)
    yield f"{block}.ssm_conv1d.weight", (4, channels)
    yield f"{block}.ssm_conv1d.bias", (channels,)
    yield f"{block}.ssm_dt.bias", (heads,)
    yield f"{block}.ssm_a", (1, heads)
    yield f"{block}.ssm_d", (1, heads)
    yield f"{block}.ssm_norm.weight", (inner // groups, groups)
    yield f"{block}.ssm_out.weight", (inner, hidden)


def gemma4_31b(path: Path) -> Path:
    """Gemma 4 31B: each sixth layer attends to everything, with fewer and wider heads and keys as values."""
    slides = [(i + 1) % 6 != 0 for i in range(60)]

    def shapes() -> Shapes:
        yield from _ends(5376, 262144)
        yield "rope_freqs.weight", (256,)
        for i, sliding in enumerate(slides):
            block, dim, kv = f"blk.{i}", 256 if sliding else 512, 16 if sliding else 4
            yield from _attention(block, 5376, 32, kv, dim, values=sliding)
            yield f"{block}.attn_q_norm.weight", (dim,)
            yield f"{block}.attn_k_norm.weight", (dim,)
            for norm in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"):
                yield f"{block}.{norm}.weight", (5376,)
            yield f"{block}.layer_output_scale.weight", (1,)
            yield from _network(block, 5376, 21504)

    keys = {
        "block_count": 60,
        "embedding_length": 5376,
        "feed_forward_length": 21504,
        "attention.head_count": 32,
        "attention.head_count_kv": [16 if sliding else 4 for sliding in slides],
        "attention.key_length": 512,
        "attention.value_length": 512,
        "attention.key_length_swa": 256,
        "attention.value_length_swa": 256,
        "attention.sliding_window": 1024,
        "attention.sliding_window_pattern": slides,
        "attention.shared_kv_layers": 0,
        "context_length": 262144,
    }
    return write_header(path, "gemma4", keys, shapes())


def deepseek_v2_lite(path: Path) -> Path:
    """DeepSeek V2 Lite as it was converted before llama.cpp kept latents."""

    def shapes() -> Shapes:
        yield from _ends(2048, 102400, head=True)
        for i in range(27):
            block = f"blk.{i}"
            yield f"{block}.attn_q.weight", (2048, 16 * 192)
            yield f"{block}.attn_kv_a_mqa.weight", (2048, 576)
            yield f"{block}.attn_kv_a_norm.weight", (512,)
            yield f"{block}.attn_kv_b.weight", (512, 16 * 256)
            yield f"{block}.attn_output.weight", (16 * 128, 2048)
            yield f"{block}.attn_norm.weight", (2048,)
            yield f"{block}.ffn_norm.weight", (2048,)
            if i == 0:
                yield from _network(block, 2048, 10944)
            else:
                yield from _experts(block, 2048, 1408, 64)
                yield from _network(block, 2048, 2 * 1408, "_shexp")

    keys = {
        "block_count": 27,
        "embedding_length": 2048,
        "feed_forward_length": 10944,
        "expert_feed_forward_length": 1408,
        "expert_count": 64,
        "expert_used_count": 6,
        "expert_shared_count": 2,
        "leading_dense_block_count": 1,
        "attention.head_count": 16,
        "attention.head_count_kv": 16,
        "attention.key_length": 192,
        "attention.value_length": 128,
        "attention.kv_lora_rank": 512,
        "rope.dimension_count": 64,
        "context_length": 163840,
    }
    return write_header(path, "deepseek2", keys, shapes())


def lfm2_1_2b(path: Path) -> Path:
    """LFM2 1.2B: 6 of 16 layers attend, the others convolve."""
    full = (2, 5, 8, 10, 12, 14)

    def shapes() -> Shapes:
        yield "token_embd.weight", (2048, 65536)
        yield "token_embd_norm.weight", (2048,)
        for i in range(16):
            block = f"blk.{i}"
            yield f"{block}.attn_norm.weight", (2048,)
            yield f"{block}.ffn_norm.weight", (2048,)
            yield from _network(block, 2048, 8192)
            if i in full:
                yield from _attention(block, 2048, 32, 8, 64)
                yield f"{block}.attn_q_norm.weight", (64,)
                yield f"{block}.attn_k_norm.weight", (64,)
            else:
                yield f"{block}.shortconv.conv.weight", (3, 2048)
                yield f"{block}.shortconv.in_proj.weight", (2048, 3 * 2048)
                yield f"{block}.shortconv.out_proj.weight", (2048, 2048)

    keys = {
        "block_count": 16,
        "embedding_length": 2048,
        "feed_forward_length": 8192,
        "attention.head_count": 32,
        "attention.head_count_kv": [8 if i in full else 0 for i in range(16)],
        "shortconv.l_cache": 3,
        "context_length": 128000,
    }
    return write_header(path, "lfm2", keys, shapes())


NANO = "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME"
"""Layers of Nemotron 3 Nano: Mamba, experts and attention."""


def nemotron_3_nano(path: Path) -> Path:
    """Nemotron 3 Nano 30B-A3B: each layer is one of three kinds."""

    def shapes() -> Shapes:
        yield from _ends(2688, 131072, head=True)
        for i, letter in enumerate(NANO):
            block = f"blk.{i}"
            yield f"{block}.attn_norm.weight", (2688,)
            if letter == "M":
                yield from _mamba(block, 2688, 64, 4096, 8, 128)
            elif letter == "*":
                yield from _attention(block, 2688, 32, 2, 128)
            else:
                yield from _experts(block, 2688, 1856, 128, gated=False)
                yield f"{block}.exp_probs_b.bias", (128,)
                yield from _network(block, 2688, 3712, "_shexp", gated=False)

    keys = {
        "block_count": len(NANO),
        "embedding_length": 2688,
        "feed_forward_length": [0 if letter != "E" else 1856 for letter in NANO],
        "expert_feed_forward_length": 1856,
        "expert_count": 128,
        "expert_used_count": 6,
        "attention.head_count": 32,
        "attention.head_count_kv": [2 if letter == "*" else 0 for letter in NANO],
        "attention.key_length": 128,
        "attention.value_length": 128,
        "ssm.conv_kernel": 4,
        "ssm.state_size": 128,
        "ssm.inner_size": 4096,
        "ssm.group_count": 8,
        "ssm.time_step_rank": 64,
        "context_length": 262144,
    }
    return write_header(path, "nemotron_h_moe", keys, shapes())


def granite_4_h_small(path: Path) -> Path:
    """Granite 4.0 H Small: 4 of 40 layers attend, the others are Mamba's; each has experts."""
    full = (5, 15, 25, 35)

    def shapes() -> Shapes:
        yield from _ends(4096, 100352)
        for i in range(40):
            block = f"blk.{i}"
            yield f"{block}.attn_norm.weight", (4096,)
            yield f"{block}.ffn_norm.weight", (4096,)
            if i in full:
                yield from _attention(block, 4096, 32, 8, 128)
            else:
                yield from _mamba(block, 4096, 128, 8192, 1, 128)
            yield from _experts(block, 4096, 768, 72)
            yield from _network(block, 4096, 1536, "_shexp")

    keys = {
        "block_count": 40,
        "embedding_length": 4096,
        "feed_forward_length": 768,
        "expert_count": 72,
        "expert_used_count": 10,
        "attention.head_count": 32,
        "attention.head_count_kv": [8 if i in full else 0 for i in range(40)],
        "ssm.conv_kernel": 4,
        "ssm.state_size": 128,
        "ssm.inner_size": 8192,
        "ssm.group_count": 1,
        "ssm.time_step_rank": 128,
        "context_length": 131072,
    }
    return write_header(path, "granitehybrid", keys, shapes())
