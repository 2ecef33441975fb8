"""Estimate parameters by the arithmetic of an ordinary decoder, for architectures that cannot be built. Never
exact.

Each layer: query, key, value and output projections; a gated feed-forward network, or as many as there are
experts, with their router and the shared ones; two norms. Then the embedding, a last norm and, unless it is
tied, the head. Where a config says more (latent attention, linear attention, compression), this arithmetic
does not know it. TRUE_BETWEEN is what counts came to, as shares of estimates: of the catalogue's models and
of the default configurations of 80 architectures of transformers, among them state-space models and others
that are no ordinary decoders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantlab.architecture.fields import EXPERT_COUNTS, EXPERTS_PER_TOKEN, NESTED, keys_of
from quantlab.architecture.parameters import LAYERS_LIMIT, Matrix, ParameterCount, Role
from quantlab.errors import QuantlabError

TRUE_BETWEEN = (1 / 3, 2.0)
_NAMES: dict[str, tuple[str, ...]] = {
    "hidden": keys_of("hidden_size"),
    "layers": keys_of("num_hidden_layers"),
    "heads": keys_of("num_attention_heads"),
    "vocabulary": keys_of("vocab_size"),
    "kv": keys_of("num_key_value_heads"),
    "head_dim": keys_of("head_dim"),
    "inner": keys_of("intermediate_size"),
    "dense_inner": ("intermediate_size_mlp",),
    "expert_inner": keys_of("moe_intermediate_size"),
    "experts": EXPERT_COUNTS,
    "chosen": EXPERTS_PER_TOKEN,
    "dense_layers": ("first_k_dense_replace",),
    "every": ("interleave_moe_layer_step",),
    "shared": ("n_shared_experts",),
    "shared_inner": ("shared_expert_intermediate_size", "share_expert_dim"),
}
_MAY_BE_ZERO = [
    key for name in ("experts", "chosen", "dense_layers", "shared", "shared_inner") for key in _NAMES[name]
]


def text_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a config.json that describes the language model."""
    for key in NESTED:
        if isinstance(config.get(key), Mapping):
            return {**config, **config[key]}
    return config


def check_sizes(config: Mapping[str, Any]) -> None:
    """Refuse a size that is not a positive whole number, or is beyond every model's. Raises QuantlabError."""
    text = text_of(config)
    for keys in _NAMES.values():
        for key in keys:
            value = text.get(key)
            if value is None or (key in _MAY_BE_ZERO and value == 0):
                continue
            if isinstance(value, list):
                continue  # a size per layer
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise QuantlabError(
                    f"{key} is {value!r} in this config, where a whole number above 0 belongs; mend"
                    " config.json"
                )
    layers = _size(text, "layers") or 0
    if layers > LAYERS_LIMIT:
        raise QuantlabError(
            f"this config has {layers} layers: no more than {LAYERS_LIMIT} can be planned; mend config.json"
        )


def estimate(config: Mapping[str, Any], why: str) -> ParameterCount:
    """The estimate, with `why` there is no exact count. Raises QuantlabError for a config that lacks even
    these sizes."""
    text = text_of(config)
    hidden, layers, vocabulary = (_need(text, name) for name in ("hidden", "layers", "vocabulary"))
    tied = bool(text.get("tie_word_embeddings", False))
    outside: list[Role] = ["embedding"] if tied else ["embedding", "head"]
    names = {"embedding": "model.embed_tokens", "head": "lm_head"}
    matrices = [
        *(m for m in _in_layers(text, hidden, layers) if m.parameters),
        *(
            Matrix(role=role, name=names[role], out_features=vocabulary, in_features=hidden, how_many=1)
            for role in outside
        ),
    ]
    return _counted(config, text, matrices, why)


def _in_layers(text: Mapping[str, Any], hidden: int, layers: int) -> list[Matrix]:
    """The matrices of all layers."""
    experts, inner = _experts(text), _size(text, "inner") or 4 * hidden
    routed = _routed_layers(text, layers) if experts else 0
    expert_inner = _size(text, "expert_inner") or inner
    dense_inner = _size(text, "dense_inner") or inner
    shared = _size(text, "shared_inner") or expert_inner * (_size(text, "shared") or 0)
    return [
        *_attention(text, hidden, layers),
        *_network("linear", "mlp", dense_inner, hidden, layers - routed, 1),
        *_network("linear", "mlp.shared_experts", shared, hidden, routed, 1),
        *_network("expert", "mlp.experts.*", expert_inner, hidden, routed, experts),
        _matrix("router", "mlp.gate", experts, hidden, routed),
    ]


def _attention(text: Mapping[str, Any], hidden: int, layers: int) -> list[Matrix]:
    """Of all layers; Step 3.5 gives its sliding layers heads of their own."""
    other, types = text.get("attention_other_setting"), text.get("layer_types")
    parts: list[tuple[Mapping[str, Any], int]] = [(text, layers)]
    if isinstance(other, Mapping) and isinstance(types, list):
        sliding = types[:layers].count("sliding_attention")
        parts = [(text, layers - sliding), ({**text, **other}, sliding)]
    matrices = []
    for sizes, many in parts:
        heads, kv = _heads(sizes, hidden)
        dim = _size(sizes, "head_dim") or hidden // heads
        matrices += [
            _matrix("linear", "self_attn.q_proj", heads * dim, hidden, many),
            _matrix("linear", "self_attn.k_proj", kv * dim, hidden, many),
            _matrix("linear", "self_attn.v_proj", kv * dim, hidden, many),
            _matrix("linear", "self_attn.o_proj", hidden, heads * dim, many),
        ]
    return matrices


def _experts(text: Mapping[str, Any]) -> int:
    """Experts of a layer; none where config.json says that the model has none (Doge)."""
    return 0 if text.get("is_moe") is False else _size(text, "experts") or 0


def _routed_layers(text: Mapping[str, Any], layers: int) -> int:
    """How many layers have experts."""
    named = text.get("moe_layers_enum")
    if isinstance(named, str) and named:
        return min(len(named.split(",")), layers)
    return max(0, layers - (_size(text, "dense_layers") or 0)) // (_size(text, "every") or 1)


def _heads(text: Mapping[str, Any], hidden: int) -> tuple[int, int]:
    """Attention heads, and those of keys and values."""
    heads = _size(text, "heads") or max(1, hidden // 128)
    return heads, _size(text, "kv") or heads


def _counted(
    config: Mapping[str, Any], text: Mapping[str, Any], matrices: list[Matrix], why: str
) -> ParameterCount:
    hidden, layers = _need(text, "hidden"), _need(text, "layers")
    heads, kv = _heads(text, hidden)
    experts, chosen = _experts(text), _size(text, "chosen") or 0
    vectors = (2 * layers + 1) * hidden
    by_role: dict[Role, int] = {"norm": vectors}
    for m in matrices:
        by_role[m.role] = by_role.get(m.role, 0) + m.parameters
    total, routed = sum(by_role.values()), by_role.get("expert", 0)
    active = total - routed + (routed * chosen // experts if experts else 0)
    embedding, head = by_role["embedding"], by_role.get("head", 0)
    return ParameterCount(
        architecture="estimate",
        total=total,
        active=active,
        active_without_embedding=active - (embedding if head else 0),
        embedding=embedding,
        head=head,
        tied=not head,
        layers=layers,
        hidden=hidden,
        query_per_kv=heads // kv,
        model_type=str(config.get("model_type", "")),
        experts=experts,
        experts_per_token=chosen,
        by_role=by_role,
        tensors=tuple(matrices),
        vectors=vectors,
        certain=False,
        doubts=(
            (
                f"Estimated as an ordinary decoder, not counted: {why}. Of 80 architectures whose count"
                " is known the true numbers were between a third of the estimate and twice it; another"
                " design may be further off."
            ),
        ),
    )


def _network(role: Role, name: str, inner: int, hidden: int, layers: int, each: int) -> list[Matrix]:
    return [
        _matrix(role, f"{name}.gate_proj", inner, hidden, layers, each),
        _matrix(role, f"{name}.up_proj", inner, hidden, layers, each),
        _matrix(role, f"{name}.down_proj", hidden, inner, layers, each),
    ]


def _matrix(role: Role, name: str, out: int, into: int, layers: int, each: int = 1) -> Matrix:
    return Matrix(
        role=role,
        name=f"model.layers.*.{name}",
        out_features=out,
        in_features=into,
        how_many=layers * each,
        layers=tuple(range(layers)),
        fused=role == "expert",
    )


def _size(text: Mapping[str, Any], name: str) -> int | None:
    value = next((text[key] for key in _NAMES[name] if isinstance(text.get(key), int | list)), None)
    return (max((v for v in value if isinstance(v, int)), default=None)) if isinstance(value, list) else value


def _need(text: Mapping[str, Any], name: str) -> int:
    size = _size(text, name)
    if size is None:
        raise QuantlabError(
            f"this config gives no {_NAMES[name][0]}, so the model's size cannot even be estimated; mend"
            " config.json"
        )
    return size
