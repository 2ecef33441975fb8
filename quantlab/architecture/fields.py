"""Read a config.json: nested text configs, names of fields, and the values that transformers assumes for
absent ones.

`families.json` holds, for each causal language model of transformers 5.23.0, the values that its config class
gives to fields which a config.json leaves out, the rule that it lays out its layers by (schedules.py), and
whether the cache computed from it was equal to the real cache tensors. `python -m
quantlab.architecture._families` writes it anew."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from quantlab.errors import QuantlabError

NESTED = ("text_config", "llm_config", "language_config", "thinker_config")
"""Where a model with vision or audio keeps the config of its language model."""
_SHARED = ("quantization_config", "tie_word_embeddings")
_INSIDE = ("attn_config", "ffn_config")
"""Where DBRX and MPT keep some fields of the language model itself."""
MTP_COUNTS = ("mtp_num_hidden_layers", "num_nextn_predict_layers", "num_mtp_modules")
"""Keys that give the layers for multi-token prediction, which follow the model's own."""
EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
"""Keys that give the routed experts of a layer, in the order in which they are looked for."""
EXPERTS_PER_TOKEN = (
    "num_experts_per_tok",
    "num_experts_per_token",
    "moe_topk",
    "moe_top_k",
    "moe_k",
    "top_k_experts",
    "experts_per_token",
)
"""Keys that give how many of them one token passes."""
OTHER_NAMES: Mapping[str, tuple[str, ...]] = {
    "hidden_size": ("n_embd", "d_model", "model_dim", "dim"),
    "num_hidden_layers": ("n_layer", "n_layers", "num_layers"),
    "num_attention_heads": ("n_head", "n_heads", "num_heads", "decoder_attention_heads"),
    "num_key_value_heads": (
        "num_kv_heads",
        "n_kv_heads",
        "kv_n_heads",
        "n_head_kv",
        "multi_query_group_num",
        "num_attention_groups",
    ),
    "head_dim": ("kv_channels", "attention_head_dim"),
    "max_position_embeddings": (
        "n_positions",
        "n_ctx",
        "max_seq_len",
        "max_sequence_length",
        "seq_length",
        "max_context_length",
    ),
    "intermediate_size": ("n_inner", "ffn_dim", "d_ff", "ffn_hidden_size"),
    "experts": EXPERT_COUNTS,
    "num_experts_per_tok": EXPERTS_PER_TOKEN[1:],
    "moe_intermediate_size": ("expert_ffn_hidden_size",),
    "sliding_window": ("sliding_window_size",),
    "vocab_size": ("padded_vocab_size",),
}
"""The names that a field has in other architectures."""
KNOWN_AS = {
    "kimi_k2": "deepseek_v3",
    "kimi_k25": "deepseek_v3",
    "chatglm": "glm",
    "baichuan": "llama",
    "internlm2": "llama",
    "yi": "llama",
}
KNOWN_AS |= {"minimax_text_01": "minimax", "minimax_m1": "minimax"}
"""Model types of the hub that transformers 5.23.0 does not know and that keep the cache of one that it
knows."""
LARGEST = 10**9
"""No dimension of a model is larger; a larger one is a mistake."""


@functools.cache
def families() -> dict[str, dict[str, Any]]:
    """Defaults by model type."""
    defaults: dict[str, dict[str, Any]] = json.loads(
        Path(__file__).with_name("families.json").read_text(encoding="utf-8")
    )["families"]
    return defaults


def keys_of(field: str) -> tuple[str, ...]:
    """Every name of a field, its own first."""
    return (field, *OTHER_NAMES.get(field, ()))


class Experts(NamedTuple):
    """Routed experts of a layer, and how many of them one token passes; 0 where the config does not say."""

    routed: int
    per_token: int


def attribute(config: Any, key: str) -> Any:
    """A config object's attribute; None where it has none, or one for each layer."""
    try:
        return getattr(config, key, None)
    except RuntimeError:  # transformers raises one where layers differ (Gemma 4, Step 3.7)
        return None


def experts_of(config: Any, written: Mapping[str, Any] | None = None) -> Experts:
    """The experts that a config object of transformers names; of sizes per layer the largest. What
    config.json itself has, `written`, comes before the defaults of the class."""
    places = (config, attribute(config, "ffn_config"))

    def largest(keys: tuple[str, ...]) -> int:
        own = [(written or {}).get(key) for key in keys]
        given = (*own, *(attribute(place, key) for place in places for key in keys))
        return next((max(sizes) for value in given if (sizes := _whole_numbers(value))), 0)

    return Experts(largest(EXPERT_COUNTS), largest(EXPERTS_PER_TOKEN))


def _whole_numbers(value: Any) -> list[int]:
    """The numbers above 0 of a size or of a list of sizes."""
    return [
        n for n in (value if isinstance(value, list | tuple) else [value]) if isinstance(n, int) and n > 0
    ]


class Fields:
    """The language model's fields of a config.json."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Read the fields. Raises QuantlabError where they describe no language model."""
        if not isinstance(config, Mapping) or not config:
            raise QuantlabError("the config holds no JSON object with fields: name a model's config.json")
        self.raw = dict(config)
        self.nested = False
        for key in NESTED * 2:
            if isinstance(self.raw.get(key), Mapping):
                inner = dict(self.raw[key])
                inner.setdefault("model_type", f"{self.raw.get('model_type') or ''}_text")
                self.nested = True
                self.raw = {k: self.raw[k] for k in _SHARED if self.raw.get(k) is not None} | inner
        for key in _INSIDE:
            if isinstance(self.raw.get(key), Mapping):
                self.raw = {k: v for k, v in self.raw[key].items() if k != "model_type"} | self.raw
        self.doubts: list[str] = []
        self.certain = True
        self.model_type = str(self.raw.get("model_type") or "")
        self.family = next((name for name in self._candidates() if name in families()), None)
        self._defaults = families().get(self.family or "", {})
        self.borrowed = self.family is not None and self.family == self._candidates()[-1]
        """Whether the family is another one, whose cache this one's is like."""
        self.rule: Mapping[str, Any] | None = self._defaults.get("schedule")
        if not self.model_type:
            self.doubt("config.json names no model_type: it is read as ordinary attention")
        elif self.family is None and not isinstance(self.raw.get("block_configs"), list):
            self.doubt(f"the architecture {self.model_type!r} is not known: it is read as ordinary attention")

    def _candidates(self) -> tuple[str, ...]:
        kind = self.model_type
        return kind, f"{kind}_text", kind.removesuffix("_text"), KNOWN_AS.get(kind.removesuffix("_text"), "")

    def doubt(self, sentence: str, certain: bool = False) -> None:
        """Note what a reader must know; figures that rest on it are not certain."""
        if sentence not in self.doubts:
            self.doubts.append(sentence)
        self.certain = self.certain and certain

    def get(self, key: str) -> Any:
        """The field as config.json has it, by any of its names, else what transformers assumes; None where
        neither has it."""
        for name in keys_of(key):
            if self.raw.get(name) is not None:
                return self.raw[name]
        return None if key in self.raw else self._defaults.get(key)

    def integer(self, key: str, least: int = 1) -> int | None:
        """A whole number. Raises QuantlabError for anything else."""
        value = self.get(key)
        if value is None:
            return None
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or value != value
            or value in (float("inf"), float("-inf"))
        ):
            raise QuantlabError(f"config.json: {key} is {value!r:.80}, where a number belongs")
        if value != int(value):
            raise QuantlabError(f"config.json: {key} is {value}, where a whole number belongs")
        if not least <= value <= LARGEST:
            raise QuantlabError(
                f"config.json: {key} is {int(value)}, which no model has: give {least} to {LARGEST}"
            )
        return int(value)

    def needed(self, key: str) -> int:
        """A whole number that must be there. Raises QuantlabError where it is not.

        A size that config.json leaves out is the config class's own, as for transformers, and a doubt names
        it. Only a nested config is read without its width or depth: a config of its own that lacks them is no
        model's."""
        value = self.integer(key)
        left_out = key in _ESSENTIAL and not self.written(key)
        if value is None or (left_out and (self.borrowed or (key in _TELLING and not self.nested))):
            raise QuantlabError(
                f"config.json lacks {key}: without it nothing can be planned; name the model's own"
                " config.json"
            )
        if left_out:
            self.doubt(
                f"config.json leaves out {key}: {value}, the default of {self.family} in transformers, is"
                " taken",
                certain=True,
            )
        return value

    def window(self) -> int | None:
        """Tokens of a sliding window; None where there is none."""
        if self.family == "modernbert-decoder":  # its class halves what config.json gives for both directions
            local = self.integer("local_attention", 0)
            return (128 if local is None else local) // 2 or None
        if (
            self.family == "mimo_v2_flash" and self.raw.get("sliding_window_size") is not None
        ):  # without the token itself
            return (self.integer("sliding_window_size") or 0) + 1
        return self.integer("sliding_window", 0) or None

    def prediction_layers(self) -> int:
        """Layers for multi-token prediction behind the model's own."""
        return next((int(n) for key in MTP_COUNTS if (n := self.integer(key, 0))), 0)

    def written(self, key: str) -> bool:
        return any(self.raw.get(name) is not None for name in keys_of(key))

    def sequence(self, key: str, layers: int, longer: bool = False) -> list[Any] | None:
        """A list with one element per layer; () counts as absent. Raises QuantlabError for another length."""
        value = self.get(key)
        if not value:
            return None
        if not isinstance(value, list | tuple):
            raise QuantlabError(
                f"config.json: {key} is {value!r:.80}, where a list with one element per layer belongs"
            )
        if len(value) == layers + self.prediction_layers():
            longer = True
        if len(value) < layers or (len(value) > layers and not longer):
            raise QuantlabError(
                f"config.json contradicts itself: num_hidden_layers is {layers} and {key} has {len(value)}"
                " elements"
            )
        return list(value[:layers])


_TELLING = ("hidden_size", "num_hidden_layers")
_ESSENTIAL = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")

NOT_OF_THE_SHAPE = (
    "quantization_config",
    "auto_map",
    "dtype",
    "torch_dtype",
    "_name_or_path",
    "transformers_version",
    "architectures",
)
"""What a config says beside the shape of its model: a count of parameters does not depend on it."""
