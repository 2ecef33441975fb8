"""Read the model of a GGUF file from its own tensors: parameters by role, bytes, and what its layers keep."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from quantlab.architecture.gguf_header import GgufHeader, GgufTensor, read_whole
from quantlab.architecture.gguf_layers import Keys, gguf_layers
from quantlab.architecture.parameters import LAYERS_LIMIT, Matrix, ParameterCount, Role
from quantlab.architecture.shape import Architecture
from quantlab.architecture.weight_bytes import WeightBytes
from quantlab.errors import QuantlabError
from quantlab.formats.gguf_types import is_plain

_BLOCK = re.compile(r"blk\.(\d+)\.(.+)\.weight")
_NAMES: Mapping[str, str] = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_qkv": "self_attn.qkv_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_a": "self_attn.q_a_proj",
    "attn_q_b": "self_attn.q_b_proj",
    "attn_kv_a_mqa": "self_attn.kv_a_proj_with_mqa",
    "attn_kv_b": "self_attn.kv_b_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_gate_shexp": "mlp.shared_expert.gate_proj",
    "ffn_up_shexp": "mlp.shared_expert.up_proj",
    "ffn_down_shexp": "mlp.shared_expert.down_proj",
    "ffn_gate_exps": "mlp.experts.*.gate_proj",
    "ffn_up_exps": "mlp.experts.*.up_proj",
    "ffn_gate_up_exps": "mlp.experts.*.gate_up_proj",
    "ffn_down_exps": "mlp.experts.*.down_proj",
    "ffn_gate_inp": "mlp.gate",
    "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
    "ssm_in": "mamba.in_proj",
    "ssm_out": "mamba.out_proj",
    "shortconv.in_proj": "conv.in_proj",
    "shortconv.out_proj": "conv.out_proj",
}
"""llama.cpp's names of matrices where transformers has others."""
_TABLES = ("rope_freqs", "rope_factors_long", "rope_factors_short")
"""Tensors that are computed and not trained."""
_NO_MATRICES = ("ssm_conv1d", "ssm_a", "ssm_d", "shortconv.conv")
_LARGEST = 10**15


class GgufModel(NamedTuple):
    """What a GGUF file says of its model."""

    architecture: Architecture
    counted: ParameterCount
    weights: WeightBytes
    """Its tensors as they are stored."""
    parameters: int
    """Elements of all its tensors."""
    file_bytes: int


def read_gguf(path: Path) -> GgufModel:
    """The model of a GGUF file, or of all its parts. Raises QuantlabError where its header cannot be read or
    describes no language model."""
    header = read_whole(path)
    if not isinstance(header.metadata.get("general.architecture"), str):
        raise QuantlabError(f"{path} names no architecture, so it holds no model")
    keys = Keys(header)
    count, hidden = keys.number("block_count"), keys.number("embedding_length")
    embedding = header.tensors.get("token_embd.weight")
    if not 0 < count <= LAYERS_LIMIT or hidden < 1 or embedding is None or len(embedding.shape) != 2:
        raise QuantlabError(
            f"{path} describes no language model: its header lacks block_count, embedding_length or"
            " token_embd.weight; name the file of the model itself"
        )
    elements = sum(tensor.elements for tensor in header.tensors.values())
    if elements > _LARGEST:
        raise QuantlabError(f"{path} is damaged: its header describes {elements} weights; download it again")
    counted = _count(header, keys)
    return GgufModel(
        _architecture(header, keys, counted), counted, _stored(header, counted), elements, header.file_bytes
    )


def _architecture(header: GgufHeader, keys: Keys, counted: ParameterCount) -> Architecture:
    layers, doubts = gguf_layers(header)
    heads = keys.number("attention.head_count")
    kv = min((layer.kv_heads for layer in layers if layer.kv_heads), default=0)
    used, widest = counted.experts_per_token, keys.number("feed_forward_length")
    expert = keys.number("expert_feed_forward_length", widest)
    return Architecture(
        model_type=keys.architecture,
        hidden_size=keys.number("embedding_length"),
        layers=layers,
        attention_heads=heads if kv else 0,
        kv_heads=kv,
        vocab_size=header.tensors["token_embd.weight"].shape[-1],
        max_context=keys.number("context_length") or None,
        intermediate_size=max(used * expert, widest) or None,
        experts=counted.experts or None,
        experts_per_token=used or None,
        tied=counted.tied,
        certain=not doubts,
        doubts=doubts,
    )


class _Part(NamedTuple):
    """One tensor in its role."""

    role: Role
    elements: int
    matrices: tuple[tuple[str, int, int, int], ...] = ()
    """Name, out_features, in_features, how many."""
    layer: int | None = None


def _parts(header: GgufHeader, first_prediction_layer: int) -> Iterator[_Part]:
    for name, tensor in header.tensors.items():
        if name.removesuffix(".weight").rpartition(".")[2] in _TABLES:
            continue
        match = _BLOCK.fullmatch(name)
        if match and int(match[1]) >= first_prediction_layer:
            yield _Part("mtp", tensor.elements)
        elif match and len(tensor.shape) > 1 and match[2] not in _NO_MATRICES:
            yield _in_layer(int(match[1]), match[2], tensor)
        elif name in ("token_embd.weight", "output.weight"):
            role: Role = "embedding" if name.startswith("token") else "head"
            known = "model.embed_tokens" if role == "embedding" else "lm_head"
            yield _Part(role, tensor.elements, ((known, tensor.shape[-1], tensor.shape[0], 1),))
        else:
            yield _Part("norm" if "norm" in name else "other", tensor.elements)


def _in_layer(layer: int, suffix: str, tensor: GgufTensor) -> _Part:
    name = f"model.layers.*.{_NAMES.get(suffix, suffix)}"
    columns, rows = tensor.shape[0], tensor.shape[1]
    many = tensor.elements // (columns * rows)
    if suffix.endswith("_exps"):
        return _Part("expert", tensor.elements, tuple(_experts(name, rows, columns, many)), layer)
    role: Role = "router" if suffix.startswith("ffn_gate_inp") else "linear"
    return _Part(role, tensor.elements, ((name, rows, columns, many),), layer)


def _experts(name: str, rows: int, columns: int, many: int) -> Iterator[tuple[str, int, int, int]]:
    if name.endswith("gate_up_proj"):
        for half in ("gate_proj", "up_proj"):
            yield name.replace("gate_up_proj", half), rows // 2, columns, many
    else:
        yield name, rows, columns, many


def _count(header: GgufHeader, keys: Keys) -> ParameterCount:
    layers = keys.number("block_count") - keys.number("nextn_predict_layers")
    parts = list(_parts(header, layers))
    by_role: dict[Role, int] = {}
    for part in parts:
        by_role[part.role] = by_role.get(part.role, 0) + part.elements
    total = sum(size for role, size in by_role.items() if role != "mtp")
    matrices = _gather(parts)
    experts, used = keys.number("expert_count"), keys.number("expert_used_count")
    routed = by_role.get("expert", 0)
    active = total - routed + (routed * used // experts if experts else 0)
    head, embedding = by_role.get("head", 0), by_role.get("embedding", 0)
    whole = all(any(layer in matrix.layers for matrix in matrices) for layer in range(layers))
    doubts = () if whole else ("The header lists no tensors of some layers: no others are counted.",)
    return ParameterCount(
        architecture=keys.architecture,
        total=total,
        active=active,
        active_without_embedding=active - (embedding if head else 0),
        embedding=embedding,
        head=head,
        tied=not head,
        layers=layers,
        hidden=keys.number("embedding_length"),
        query_per_kv=_query_per_kv(keys),
        model_type=keys.architecture,
        experts=experts,
        experts_per_token=used,
        by_role=by_role,
        tensors=tuple(matrices),
        vectors=total - sum(matrix.parameters for matrix in matrices),
        certain=whole,
        doubts=doubts,
    )


def _query_per_kv(keys: Keys) -> int:
    heads, kv = keys.number("attention.head_count", 1), keys.number("attention.head_count_kv", 1)
    return heads // kv if kv and heads >= kv else 1


def _gather(parts: list[_Part]) -> list[Matrix]:
    """Equal matrices as one, with the layers that they stand in."""
    groups: dict[tuple[Role, str, int, int], tuple[int, set[int]]] = {}
    for part in parts:
        for name, rows, columns, many in part.matrices:
            count, layers = groups.get((part.role, name, rows, columns), (0, set()))
            own = set() if part.layer is None else {part.layer}
            groups[part.role, name, rows, columns] = (count + many, layers | own)
    return [
        Matrix(
            role=role,
            name=name,
            out_features=rows,
            in_features=columns,
            how_many=many,
            layers=tuple(sorted(layers)),
            fused=role == "expert",
        )
        for (role, name, rows, columns), (many, layers) in groups.items()
    ]


def _stored(header: GgufHeader, counted: ParameterCount) -> WeightBytes:
    """Bytes of the tensors, as the file has them."""
    tensors = header.tensors
    total = sum(tensor.bytes for tensor in tensors.values())
    packed = [tensor for tensor in tensors.values() if not is_plain(tensor.type)]
    inside, weights = sum(t.bytes for t in packed), sum(t.elements for t in packed)
    return WeightBytes(
        bytes_total=total,
        bytes_quantized=inside,
        bytes_unquantized=total - inside,
        bits_per_weight=8 * total / sum(t.elements for t in tensors.values()),
        quantized_bits_per_weight=8 * inside / weights if weights else None,
        how="formula",
        expert_bytes=sum(t.bytes for name, t in tensors.items() if "_exps." in name),
        embedding_bytes=0 if counted.tied else tensors["token_embd.weight"].bytes,
        notes=("The file as it is, by the types of its own tensors.",),
    )
