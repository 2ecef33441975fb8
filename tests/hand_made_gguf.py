"""Write a tiny random Llama as a GGUF file, without the converter: half a second instead of ten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

HIDDEN, LAYERS, HEADS, KV_HEADS, FEED = 64, 2, 4, 2, 128
HEAD = HIDDEN // HEADS
TOKENS = (
    "<unk>",
    "<s>",
    "</s>",
    *(f"<0x{byte:02X}>" for byte in range(256)),
    "▁",
    *"abcdefghijklmnopqrstuvwxyz",
)


def shapes(biases: bool = False) -> dict[str, tuple[int, ...]]:
    """The tensors of the model, rows first."""
    made: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (len(TOKENS), HIDDEN),
        "output_norm.weight": (HIDDEN,),
        "output.weight": (len(TOKENS), HIDDEN),
    }
    sides = {
        "attn_q": (HIDDEN, HIDDEN),
        "attn_k": (KV_HEADS * HEAD, HIDDEN),
        "attn_v": (KV_HEADS * HEAD, HIDDEN),
        "attn_output": (HIDDEN, HIDDEN),
        "ffn_gate": (FEED, HIDDEN),
        "ffn_up": (FEED, HIDDEN),
        "ffn_down": (HIDDEN, FEED),
    }
    for layer in range(LAYERS):
        made |= {f"blk.{layer}.{name}.weight": (HIDDEN,) for name in ("attn_norm", "ffn_norm")}
        made |= {f"blk.{layer}.{name}.weight": shape for name, shape in sides.items()}
        if biases:
            made |= {f"blk.{layer}.{n}.bias": (s[0],) for n, s in sides.items() if n.startswith("attn")}
    return made


def tensors(biases: bool = False) -> dict[str, np.ndarray[Any, Any]]:
    """Random weights, with attention that is sharp enough for positions to matter."""
    random = np.random.default_rng(0)
    return {
        name: np.ones(shape, np.float32)
        if "norm" in name
        else (random.standard_normal(shape) * (1 if "bias" in name else 0.25)).astype(np.float32)
        for name, shape in shapes(biases).items()
    }


def write_tiny_gguf(
    path: Path,
    weights: dict[str, np.ndarray[Any, Any]],
    scaling: str | None = None,
    factor: float = 8.0,
    tensors_in_a_part: int = 0,
) -> Path:
    """Write the file, or its parts, NAME-00001-of-00003.gguf beside it. `scaling` is that of rotary
    positions."""
    import gguf

    writer = gguf.GGUFWriter(path, "llama", split_max_tensors=tensors_in_a_part)
    writer.add_context_length(2048)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HEAD)
    writer.add_vocab_size(len(TOKENS))
    if scaling:
        writer.add_rope_scaling_type(gguf.RopeScalingType(scaling))
        writer.add_rope_scaling_factor(factor)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(list(TOKENS))
    writer.add_token_scores([-float(n) for n in range(len(TOKENS))])
    kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL]
    kinds += [gguf.TokenType.BYTE] * 256 + [gguf.TokenType.NORMAL] * (len(TOKENS) - 259)
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    for name, values in weights.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
