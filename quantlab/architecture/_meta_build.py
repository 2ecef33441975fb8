"""Build an architecture on torch's meta device from a config.json, without weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantlab.architecture.fields import KNOWN_AS, NOT_OF_THE_SHAPE

_SAME_SIZES = ("kimi_k2", "kimi_k25", "baichuan", "internlm2", "yi")
"""Of the model types that transformers does not know: those whose config gives its sizes by the names of the
one that it knows."""


class NoSuchArchitectureError(Exception):
    """transformers has no language model of this kind."""


def build(config: Mapping[str, Any]) -> Any:
    """The model on the meta device. Raises NoSuchArchitectureError, or whatever transformers raises for a
    config that it refuses."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config, _ = known_by(config)
    if config.get("model_type") not in CONFIG_MAPPING:
        raise NoSuchArchitectureError(
            f"transformers has no architecture {config.get('model_type', 'without model_type')!r}"
        )
    import torch
    from transformers import (
        AutoConfig,
        AutoModel,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
        AutoModelForSeq2SeqLM,
    )

    given = {
        key: value for key, value in config.items() if key not in NOT_OF_THE_SHAPE and key != "model_type"
    }
    made = AutoConfig.for_model(config["model_type"], **given)
    # AutoModelForCausalLM drops vision towers without a word
    several = (AutoModelForImageTextToText, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModel)
    kinds = (
        several
        if made.get_text_config() is not made
        else (AutoModelForCausalLM, AutoModelForImageTextToText, *several[2:])
    )
    for kind in kinds:
        if type(made) in kind._model_mapping:
            with torch.device("meta"):
                return kind.from_config(made)
    raise NoSuchArchitectureError(f"transformers builds no language model of {config['model_type']!r}")


def known_by(config: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[str]]:
    """The config under the model type that transformers has for it, and what a reader must know of that. Of a
    Kimi with a vision tower the language model alone is known."""
    kind, nested, said = config.get("model_type"), nested_config(config), []
    if kind == "kimi_k25" and nested:
        said.append(
            "Only its language model is counted, not its vision tower: transformers has no class for it."
        )
        config, kind = nested, nested.get("model_type") or kind
    if kind in _SAME_SIZES:
        said.append(f"Counted as {KNOWN_AS[kind]}, whose architecture it has: transformers has no {kind}.")
        config = {**config, "model_type": KNOWN_AS[kind]}
    return config, said


def nested_config(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    nested = config.get("text_config")
    return nested if isinstance(nested, Mapping) else None
