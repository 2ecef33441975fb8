"""Check a model's tokenizer: whether it is there, and whether it belongs to the model."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from quantlab.errors import QuantlabError

FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model", "vocab.txt", "tekken.json")
"""Files that hold a vocabulary, one of which every tokenizer has; beside them `*.tiktoken`."""


def check_tokenizer(names: Collection[str], where: str) -> None:
    """Raise QuantlabError where no file at a place holds a vocabulary."""
    if not any(name in FILES or name.endswith(".tiktoken") for name in names):
        raise QuantlabError(
            f"{where} has no tokenizer ({', '.join(FILES[:3])}, ...): copy the files of the tokenizer that it"
            " was trained with into it"
        )


def check_vocabulary(tokenizer: Any, rows: int, model: str) -> None:
    """Raise QuantlabError where the tokenizer can give ids that the embedding of so many rows lacks.

    Special tokens that were added behind the end are left alone, unless every text has them: Gemma 3 has one
    for images."""
    own = {name: getattr(tokenizer, f"{name}_token_id", None) for name in ("bos", "eos")}
    beyond = [name for name, number in own.items() if isinstance(number, int) and number >= rows]
    added = getattr(tokenizer, "added_tokens_decoder", {})
    plain = [
        number for number, token in added.items() if number >= rows and not getattr(token, "special", True)
    ]
    if int(tokenizer.vocab_size) > rows or beyond or plain:
        largest = max([int(tokenizer.vocab_size) - 1, *plain, *(own[name] for name in beyond)])
        raise QuantlabError(
            f"the tokenizer of {model} gives ids up to {largest:,} and the model's embedding has {rows:,}"
            " rows: they do not belong together; copy the tokenizer that the model was trained with"
        )


def check_template(tokenizer: Any, model: str) -> None:
    """Raise QuantlabError where tasks are to be asked through a chat template that the tokenizer does not
    have."""
    if not getattr(tokenizer, "chat_template", None):
        raise QuantlabError(
            f"tasks.chat_template is set and the tokenizer of {model} has no chat template: take it out of"
            " the recipe, or name the model's instruct version"
        )
