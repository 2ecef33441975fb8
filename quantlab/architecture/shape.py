"""Read a model's shape from its config.json, layer by layer. Imports no torch and no transformers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from quantlab.architecture.fields import Fields, families
from quantlab.architecture.hybrids import ATTENTION_FREE
from quantlab.architecture.layers import Layer, kv_heads, layers_of
from quantlab.architecture.parameters import LAYERS_LIMIT
from quantlab.architecture.release import StoredFormat, read_stored
from quantlab.errors import QuantlabError
from quantlab.frozen import Frozen
from quantlab.recipe import explain

_LISTS = ("layer_types", "layers_block_type", "hybrid_override_pattern")
_MLA = ("mla", "mla_indexed")


class Architecture(Frozen):
    """A model's shape."""

    model_type: str
    hidden_size: int
    layers: tuple[Layer, ...]
    attention_heads: int
    kv_heads: int
    """Of an ordinary layer; 1 where the cache holds one latent for all heads."""
    vocab_size: int
    max_context: int | None
    """Tokens that the model was made for; None where the config does not say."""
    intermediate_size: int | None = None
    """Channels between a dense feed-forward's layers, or of the experts that one token passes."""
    experts: int | None = None
    experts_per_token: int | None = None
    tied: bool = False
    stored: StoredFormat | None = None
    certain: bool = True
    """False where a figure rests on a guess that `doubts` names."""
    doubts: tuple[str, ...] = ()

    @cached_property
    def distinct_layers(self) -> dict[Layer, int]:
        """Layers that differ, and how many there are of each."""
        counts: dict[Layer, int] = {}
        for layer in self.layers:
            counts[layer] = counts.get(layer, 0) + 1
        return counts

    @cached_property
    def kinds(self) -> dict[str, int]:
        """How many layers there are of each kind."""
        counts: dict[str, int] = {}
        for layer, how_many in self.distinct_layers.items():
            counts[layer.kind] = counts.get(layer.kind, 0) + how_many
        return counts


def read_architecture(config: Mapping[str, Any]) -> Architecture:
    """The shape that a config.json's content describes; a nested text config is read, an unknown type as
    ordinary attention.

    Raises QuantlabError for missing or contradictory fields.
    """
    try:
        return _read(Fields(config))
    except ValidationError as error:
        raise QuantlabError(f"config.json has fields that no model has: {explain(error)}") from None


def _read(fields: Fields) -> Architecture:
    free, experts = fields.family in ATTENTION_FREE, _most(fields, "experts", 0) or None
    heads = 0 if free else fields.needed("num_attention_heads")
    if (
        not any(fields.written(key) for key in ("num_key_value_heads", "block_configs"))
        and fields.family is None
    ):
        fields.doubt(
            f"config.json has no num_key_value_heads: as many as attention heads ({heads}) are taken"
        )
    layers = layers_of(fields, _how_many_layers(fields))
    kv = 0 if free else _kv_heads(fields, layers)
    _check_heads(heads, kv)
    per_token = _experts_per_token(fields, experts)
    if fields.family and not families()[fields.family].get("checked"):
        fields.doubt(
            f"the cache of {fields.model_type} has not been compared with the real one: it is read from the"
            " config's own fields"
        )
    return Architecture(
        model_type=fields.model_type or "unknown",
        hidden_size=fields.needed("hidden_size"),
        layers=layers,
        attention_heads=heads,
        kv_heads=kv,
        vocab_size=fields.needed("vocab_size"),
        max_context=fields.integer("max_position_embeddings", 0) or None,
        intermediate_size=_intermediate(fields, per_token),
        experts=experts,
        experts_per_token=per_token,
        tied=bool(fields.get("tie_word_embeddings")),
        stored=read_stored(fields.raw.get("quantization_config"), fields),
        certain=fields.certain,
        doubts=tuple(fields.doubts),
    )


def _how_many_layers(fields: Fields) -> int:
    listed = next(
        (types for key in _LISTS if (types := fields.get(key)) and isinstance(types, list | str)), ()
    )
    layers = (
        len(listed)
        if listed and not fields.written("num_hidden_layers")
        else fields.needed("num_hidden_layers")
    )
    if layers > LAYERS_LIMIT:
        raise QuantlabError(
            f"config.json: num_hidden_layers is {layers}, more than any model has: give at most"
            f" {LAYERS_LIMIT}"
        )
    twice = (
        fields.family == "longcat_flash" and "num_hidden_layers" not in fields.raw
    )  # two attentions in each of its layers
    return 2 * layers if twice else layers


def _kv_heads(fields: Fields, layers: tuple[Layer, ...]) -> int:
    """Of an ordinary layer; where layers differ by themselves, the fewest that one has."""
    if any(layer.kind in _MLA for layer in layers):
        return 1
    if fields.get("block_configs"):
        return min((layer.kv_heads for layer in layers if layer.kv_heads), default=0)
    return kv_heads(fields)


def _check_heads(heads: int, kv: int) -> None:
    if kv > heads or (kv and heads % kv):
        raise QuantlabError(
            f"config.json contradicts itself: num_attention_heads {heads} cannot be divided by"
            f" num_key_value_heads {kv}; check both"
        )


def _experts_per_token(fields: Fields, experts: int | None) -> int | None:
    if not experts:
        return None
    per_token = _most(fields, "num_experts_per_tok")
    if per_token is None:
        fields.doubt(
            f"config.json has {experts} experts and does not say how many a token passes: all are taken"
        )
        return experts
    if per_token > experts:
        raise QuantlabError(
            f"config.json contradicts itself: num_experts_per_tok {per_token} is more than its {experts}"
            " experts"
        )
    return per_token


def _most(fields: Fields, key: str, least: int = 1) -> int | None:
    """A number, or the largest one of a list with one per layer. Raises QuantlabError for anything else."""
    value = fields.get(key)
    if not isinstance(value, list) or not value:
        return fields.integer(key, least)
    sizes = [
        Fields({"model_type": fields.model_type or "unknown", key: size}).integer(key, least) or 0
        for size in value
    ]
    if len(set(sizes)) > 1:
        fields.doubt(
            f"{key} differs between layers: the largest, {max(sizes)}, is taken for all", certain=True
        )
    return max(sizes)


def _intermediate(fields: Fields, per_token: int | None) -> int | None:
    """Channels that one token passes at once in its widest feed-forward."""
    widest = _most(fields, "intermediate_size", 0) or 0
    if not per_token:
        return widest or None
    expert = _most(fields, "moe_intermediate_size", 0) or widest
    return max(per_token * expert, widest) or None
