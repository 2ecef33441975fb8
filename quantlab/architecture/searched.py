"""Count models whose config.json gives each layer's widths in `block_configs`, such as Llama-Nemotron,
found by architecture search. transformers has no class for them.

A layer is Llama's: its attention has as many key-value heads as `n_heads_in_group` leaves, or is one linear
layer, or is left out; its feed-forward's channels follow from `ffn_mult`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from quantlab.architecture.fields import Fields
from quantlab.architecture.hybrids import attention_of
from quantlab.architecture.layers import head_dim
from quantlab.architecture.parameters import Matrix, ParameterCount, Role
from quantlab.errors import QuantlabError

MODEL_TYPE = "nemotron-nas"
_MULTIPLE = 256
"""Channels of a feed-forward are a multiple of it (`_find_multiple` of the release's own code)."""


class _Linear(NamedTuple):
    """One matrix of one layer."""

    name: str
    out: int
    into: int


def is_searched(config: Mapping[str, Any]) -> bool:
    """Whether the model is of this kind."""
    return config.get("model_type") == MODEL_TYPE and isinstance(config.get("block_configs"), list)


def count_searched(config: Mapping[str, Any]) -> ParameterCount:
    """Count it from the widths. Raises QuantlabError for a config without the sizes of the rest."""
    fields = Fields(config)
    layers, hidden = fields.needed("num_hidden_layers"), fields.needed("hidden_size")
    vocabulary, tied = fields.needed("vocab_size"), bool(fields.get("tie_word_embeddings"))
    groups: dict[_Linear, list[int]] = {}
    norms = 1
    for i, block in enumerate(fields.sequence("block_configs", layers) or []):
        linears = list(_linears(fields, block, hidden))
        norms += any("self_attn" in linear.name for linear in linears)
        norms += any("mlp" in linear.name for linear in linears)
        for linear in linears:
            groups.setdefault(linear, []).append(i)
    matrices = [
        Matrix(
            role="linear",
            name=f"model.layers.*.{name}",
            out_features=out,
            in_features=into,
            how_many=len(where),
            layers=tuple(where),
        )
        for (name, out, into), where in groups.items()
    ]
    ends: dict[Role, str] = {"embedding": "model.embed_tokens"}
    if not tied:
        ends["head"] = "lm_head"
    matrices += [
        Matrix(role=role, name=name, out_features=vocabulary, in_features=hidden, how_many=1)
        for role, name in ends.items()
    ]
    return _counted(fields, matrices, norms * hidden, tied)


def _linears(fields: Fields, block: Any, hidden: int) -> Iterator[_Linear]:
    if not isinstance(block, Mapping):
        raise QuantlabError(f"config.json: block_configs holds {block!r:.40}, where an object belongs")
    heads, attention = fields.needed("num_attention_heads"), attention_of(block)
    if attention is not None:
        dim = head_dim(fields)
        kv = heads // attention["n_heads_in_group"] * dim
        yield _Linear("self_attn.q_proj", heads * dim, hidden)
        yield _Linear("self_attn.k_proj", kv, hidden)
        yield _Linear("self_attn.v_proj", kv, hidden)
        yield _Linear("self_attn.o_proj", hidden, heads * dim)
    elif (block.get("attention") or {}).get("replace_with_linear"):
        yield _Linear("self_attn.linear_attn", hidden, hidden)
    network = block.get("ffn") or {}
    if network.get("no_op"):
        return
    if network.get("replace_with_linear"):
        yield _Linear("mlp.linear_mlp", hidden, hidden)
        return
    multiple = network.get("ffn_mult")
    if not isinstance(multiple, int | float) or not 0 < multiple < hidden:
        raise QuantlabError(
            f"config.json: ffn_mult of block_configs is {multiple!r:.40}, where a number belongs"
        )
    channels = int(2 * multiple * hidden / 3)
    inner = -(-channels // _MULTIPLE) * _MULTIPLE
    yield _Linear("mlp.gate_proj", inner, hidden)
    yield _Linear("mlp.up_proj", inner, hidden)
    yield _Linear("mlp.down_proj", hidden, inner)


def _counted(fields: Fields, matrices: list[Matrix], vectors: int, tied: bool) -> ParameterCount:
    by_role: dict[Role, int] = {"norm": vectors}
    for matrix in matrices:
        by_role[matrix.role] = by_role.get(matrix.role, 0) + matrix.parameters
    total = sum(by_role.values())
    return ParameterCount(
        architecture="DeciLMForCausalLM",
        total=total,
        active=total,
        active_without_embedding=total - (0 if tied else by_role["embedding"]),
        embedding=by_role["embedding"],
        head=by_role.get("head", 0),
        tied=tied,
        layers=fields.needed("num_hidden_layers"),
        hidden=fields.needed("hidden_size"),
        model_type=MODEL_TYPE,
        by_role=by_role,
        tensors=tuple(matrices),
        vectors=vectors,
    )
