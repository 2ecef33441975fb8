"""Describe the random models that the checks share: one wide as kernels like it, one of 576 columns, which
128 and 256 do not divide."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from quantlab.hardware.device import Device

WIDE, NARROW = "wide", "narrow"
_NARROW = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "tie_word_embeddings": True,
}
_ON_GPU: dict[str, dict[str, Any]] = {
    WIDE: {
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 8192,
    },
    NARROW: _NARROW | {"num_hidden_layers": 8, "max_position_embeddings": 8192},
}
_ON_CPU: dict[str, dict[str, Any]] = {
    WIDE: {"num_hidden_layers": 4, "head_dim": 64},
    NARROW: _NARROW | {"num_hidden_layers": 2},
}
_GROUPS = {WIDE: 128, NARROW: 32}
"""Columns that share a scale, where a method has such a setting."""
_WORDS = 40_000


def fields_of(model: str, device: Device) -> dict[str, Any]:
    """Fields of the configuration that differ from the table's of tiny Llamas."""
    return (_ON_GPU if device.places.gpus else _ON_CPU)[model]


def group_of(model: str) -> int:
    """Columns that share a scale on this model."""
    return _GROUPS[model]


def described(device: Device) -> dict[str, str]:
    """Every model in words."""
    return {model: _words(_all_fields(model, device)) for model in (WIDE, NARROW)}


def _words(fields: Mapping[str, Any]) -> str:
    heads = f"{fields['num_attention_heads']} heads of {fields['head_dim']}"
    return (
        f"random Llama: hidden size {fields['hidden_size']:,}, {fields['num_hidden_layers']} layers, {heads},"
        f" {fields['num_key_value_heads']} of keys and values, feed-forward {fields['intermediate_size']:,},"
        f" vocabulary {fields['vocab_size']:,}"
    )


def _all_fields(model: str, device: Device) -> dict[str, Any]:
    return _llama().fields | fields_of(model, device)  # type: ignore[no-any-return]


def _llama() -> Any:
    from quantlab.models.tiny import family

    return family("llama")


def write(model: str, device: Device, folder: Path) -> None:
    """Write the model into a new folder: config, safetensors, tokenizer."""
    from quantlab.environments.versions import installed
    from quantlab.models.tiny import write_model

    # llama.cpp knows SentencePiece's tokenizers by their file, and has to recognise the others
    pieces = bool(installed(["sentencepiece"]))
    write_model(
        _llama()._replace(name=model, fields=_all_fields(model, device), pieces=pieces),
        folder,
    )


class Texts(NamedTuple):
    """Random words to calibrate and to measure on."""

    calibration: str
    evaluation: str


def texts() -> Texts:
    """Two texts that share no sentence: the words that the tokenizer spells, in an order that is always the
    same."""
    import random

    from quantlab.models.tiny.tokenizer import WORDS

    words = WORDS.read_text(encoding="utf-8").split()
    drawn = [" ".join(random.Random(seed).choices(words, k=_WORDS)) for seed in (1, 2)]
    return Texts(*drawn)
