"""Tiny random GGUF files of architectures that attend otherwise than Llama does, with the tiny Llama's
vocabulary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

WIDTH, LAYERS, WINDOW = 64, 4, 16


def write(llama: Path, target: Path, architecture: str) -> Path:
    """`cohere2` attends over sliding windows of 16 tokens in three layers of four, `mamba` keeps a state."""
    from gguf import GGUFReader, GGUFWriter

    writer = GGUFWriter(target, architecture)
    for name, field in GGUFReader(llama).fields.items():
        if name.startswith("tokenizer."):
            writer.add_key_value(
                name, field.contents(), field.types[0], field.types[-1] if len(field.types) > 1 else None
            )
    vocabulary = int(next(t for t in GGUFReader(llama).tensors if t.name == "token_embd.weight").shape[1])
    writer.add_block_count(LAYERS)
    writer.add_context_length(256)
    writer.add_embedding_length(WIDTH)
    shapes = _sliding(writer) if architecture == "cohere2" else _recurrent(writer)
    tensors = {f"blk.{layer}.{name}": shape for layer in range(LAYERS) for name, shape in shapes.items()}
    random = np.random.default_rng(0)
    for name, shape in {
        "token_embd.weight": (vocabulary, WIDTH),
        "output_norm.weight": (WIDTH,),
        **tensors,
    }.items():
        values = np.ones(shape) if "norm" in name else random.normal(0, 0.3, shape)
        writer.add_tensor(name, (-np.abs(values) if name.endswith("ssm_a") else values).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def _sliding(writer: Any) -> dict[str, tuple[int, ...]]:
    writer.add_feed_forward_length(2 * WIDTH)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_rope_dimension_count(WIDTH // 4)
    writer.add_layer_norm_eps(1e-5)
    writer.add_logit_scale(1.0)
    writer.add_sliding_window(WINDOW)
    square = {f"attn_{part}.weight": (WIDTH, WIDTH) for part in ("q", "k", "v", "output")}
    wide = {f"ffn_{part}.weight": (2 * WIDTH, WIDTH) for part in ("gate", "up")}
    return {"attn_norm.weight": (WIDTH,), **square, **wide, "ffn_down.weight": (WIDTH, 2 * WIDTH)}


def _recurrent(writer: Any) -> dict[str, tuple[int, ...]]:
    inner, state, rank, kernel = 2 * WIDTH, 16, 4, 4
    writer.add_feed_forward_length(0)
    writer.add_head_count(0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_ssm_conv_kernel(kernel)
    writer.add_ssm_inner_size(inner)
    writer.add_ssm_state_size(state)
    writer.add_ssm_time_step_rank(rank)
    return {
        "attn_norm.weight": (WIDTH,),
        "ssm_in.weight": (2 * inner, WIDTH),
        "ssm_conv1d.weight": (inner, kernel),
        "ssm_conv1d.bias": (inner,),
        "ssm_x.weight": (rank + 2 * state, inner),
        "ssm_dt.weight": (inner, rank),
        "ssm_dt.bias": (inner,),
        "ssm_a": (inner, state),
        "ssm_d": (inner,),
        "ssm_out.weight": (WIDTH, inner),
    }
