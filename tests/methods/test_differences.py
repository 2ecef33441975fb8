"""What a checkpoint changed beside the weights is named, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from quantlab.methods._differences import differences

TOKENIZER = {"eos_token": "</s>", "padding_side": "left", "tokenizer_class": "X", "chat_template": "{{ a }}"}
GENERATION = {"temperature": 0.6, "eos_token_id": [1, 2], "transformers_version": "5"}


def _folder(path: Path, tokenizer: dict[str, Any], generation: dict[str, Any]) -> Path:
    path.mkdir()
    (path / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    (path / "generation_config.json").write_text(json.dumps(generation))
    return path


@pytest.mark.parametrize(
    ("tokenizer", "generation", "said"),
    [
        ({}, {}, ()),
        ({}, {"output_attentions": False, "do_sample": False}, ()),
        ({"tokenizer_class": "Y", "eos_token": {"content": "</s>"}}, {"transformers_version": "4"}, ()),
        (
            {"eos_token": "<end>"},
            {},
            (
                "Its tokenizer_config.json differs from the model's: eos_token is '<end>', the model's is '</s>'.",
            ),
        ),
        (
            {},
            {"temperature": None, "top_p": 0.9},
            (
                "Its generation_config.json differs from the model's: temperature is not set, the model's is"
                " 0.6; top_p is 0.9, the model's is not set.",
            ),
        ),
        ({"chat_template": None}, {}, ("It has no chat template, the model has one.",)),
        (
            {"chat_template": "{{ b }}"},
            {},
            ("Its chat template is not the model's: what it answers when served may differ.",),
        ),
    ],
)
def test_differences(
    tokenizer: dict[str, Any], generation: dict[str, Any], said: tuple[str, ...], tmp_path: Path
) -> None:
    source = _folder(tmp_path / "source", TOKENIZER, GENERATION)
    checkpoint = _folder(tmp_path / "checkpoint", TOKENIZER | tokenizer, GENERATION | generation)
    assert differences(checkpoint, source) == said


def test_a_template_in_a_file_of_its_own_is_the_same_template(tmp_path: Path) -> None:
    source = _folder(tmp_path / "source", TOKENIZER, GENERATION)
    checkpoint = _folder(tmp_path / "checkpoint", TOKENIZER | {"chat_template": None}, GENERATION)
    (checkpoint / "chat_template.jinja").write_text("{{ a }}\n")
    assert differences(checkpoint, source) == ()
