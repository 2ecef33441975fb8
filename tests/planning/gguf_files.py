"""GGUF files of Llama's shape that hold zeros, for asking llama.cpp which types it gives their tensors."""

from __future__ import annotations

import collections
import ctypes
import os
import re
from pathlib import Path

import numpy as np

from quantlab.engines._llama.library import assign
from quantlab.formats.gguf import constant
from quantlab.formats.llama_log import llama, messages
from quantlab.methods._gguf.importance import Entry, Importance
from quantlab.methods._gguf.quantizer import _imatrix, quantizable


def write(path: Path, config: dict[str, int | bool]) -> Path:
    """An F16 file of zeros for a Llama's or Mixtral's config.json; no tokenizer, since quantizing needs
    none."""
    from gguf import GGUFWriter

    hidden, inner, layers = (
        int(config["hidden_size"]),
        int(config["intermediate_size"]),
        int(config["num_hidden_layers"]),
    )
    heads, kv, experts = (
        int(config["num_attention_heads"]),
        int(config["num_key_value_heads"]),
        int(config.get("num_local_experts", 0)),
    )
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(layers)
    writer.add_context_length(512)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(int(config["vocab_size"]))
    if experts:
        writer.add_expert_count(experts)
        writer.add_expert_used_count(2)
    for name, shape in shapes(
        hidden,
        inner,
        layers,
        hidden * kv // heads,
        experts,
        int(config["vocab_size"]),
        bool(config["tie_word_embeddings"]),
    ):
        plain = len(shape) == 1 or "ffn_gate_inp" in name
        values = np.random.default_rng(0).normal(0, 0.02, shape)
        writer.add_tensor(name, values.astype(np.float32 if plain else np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def shapes(
    hidden: int, inner: int, layers: int, kv: int, experts: int, vocabulary: int, tied: bool
) -> list[tuple[str, tuple[int, ...]]]:
    """Tensors by llama.cpp's names, shapes rows first."""
    found: list[tuple[str, tuple[int, ...]]] = [
        ("token_embd.weight", (vocabulary, hidden)),
        ("output_norm.weight", (hidden,)),
    ]
    if not tied:
        found.append(("output.weight", (vocabulary, hidden)))
    many, ending = ((experts,), "_exps") if experts else ((), "")
    for i in range(layers):
        found += [
            (f"blk.{i}.attn_q.weight", (hidden, hidden)),
            (f"blk.{i}.attn_k.weight", (kv, hidden)),
            (f"blk.{i}.attn_v.weight", (kv, hidden)),
            (f"blk.{i}.attn_output.weight", (hidden, hidden)),
            (f"blk.{i}.ffn_gate{ending}.weight", (*many, inner, hidden)),
            (f"blk.{i}.ffn_up{ending}.weight", (*many, inner, hidden)),
            (f"blk.{i}.ffn_down{ending}.weight", (*many, hidden, inner)),
            (f"blk.{i}.attn_norm.weight", (hidden,)),
            (f"blk.{i}.ffn_norm.weight", (hidden,)),
        ]
        if experts:
            found.append((f"blk.{i}.ffn_gate_inp.weight", (experts, hidden)))
    return found


def dry_run(source: Path, type_name: str) -> collections.Counter[tuple[str, str]]:
    """The tensors that llama.cpp would quantize in a file, by name without its layer, with the type that it
    would give them.

    With an importance matrix, which finds every column equally important.
    """
    api = llama()
    parameters = api.llama_model_quantize_default_params()
    assign(
        parameters, nthread=1, ftype=constant(type_name), dry_run=True, imatrix=_imatrix(_importance(source))
    )
    with messages() as said:
        code = api.llama_model_quantize(
            os.fsencode(source), os.fsencode(source.with_name("never.gguf")), ctypes.byref(parameters)
        )
    assert code == 0, "".join(said.lines)
    rows = re.findall(r"\] +(?:blk\.\d+\.)?(\w+)\.weight.*-> .*\((\w+)\)", "".join(said.lines))
    return collections.Counter((name, kind.upper()) for name, kind in rows)


def _importance(path: Path) -> Importance:
    entries = {}
    for tensor in quantizable(path):
        entries[tensor.name] = Entry(
            np.ones((tensor.shape[2], tensor.shape[0]), np.float32), np.ones(tensor.shape[2], np.float32)
        )
    return Importance(entries, 1, 16)
