"""Name what somebody else's checkpoint changed beside the weights.

That is the tokenizer's settings, the chat template and the generation config. Quality is measured with the
model's own; whoever serves the checkpoint gets the checkpoint's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantlab.formats.json_file import read_object

_NAMED = 4
_ABOUT_THE_FILE = ("transformers_version", "_from_model_config", "_name_or_path")
_TOKENIZER = (
    "add_bos_token", "add_eos_token", "add_prefix_space", "bos_token", "eos_token", "pad_token", "unk_token",
    "clean_up_tokenization_spaces", "model_max_length", "padding_side", "truncation_side",
)  # fmt: skip


def differences(path: Path, source: Path) -> tuple[str, ...]:
    """Compare a checkpoint, a folder or a GGUF file, with the model's folder; one sentence per difference."""
    if path.is_file():
        return _of_template(_template_of_gguf(path), _template(source))
    return (
        *_of_settings("tokenizer_config.json", path, source, _TOKENIZER),
        *_of_template(_template(path), _template(source)),
        *_of_settings("generation_config.json", path, source),
    )


def _of_settings(name: str, path: Path, source: Path, only: tuple[str, ...] | None = None) -> tuple[str, ...]:
    if not (path / name).is_file() or not (source / name).is_file():
        return ()
    here, own = _plain(read_object(path / name), only), _plain(read_object(source / name), only)
    changed = [
        f"{key} is {_said(here.get(key))}, the model's is {_said(own.get(key))}"
        for key in sorted({*here, *own})
        if here.get(key) != own.get(key)
    ]
    if not changed:
        return ()
    more = f"; {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
    return (f"Its {name} differs from the model's: {'; '.join(changed[:_NAMED])}{more}.",)


def _plain(settings: Mapping[str, Any], only: tuple[str, ...] | None) -> dict[str, Any]:
    """The settings that matter; a token may be written as its text or as an object with it. A generation
    config writes out what is not asked for: False is not set there."""
    return {
        key: value["content"] if isinstance(value, dict) and "content" in value else value
        for key, value in settings.items()
        if (key in only if only else key not in _ABOUT_THE_FILE and value is not False) and value is not None
    }


def _said(value: object) -> str:
    return "not set" if value is None else repr(value)[:60]


def _of_template(template: str | None, own: str | None) -> tuple[str, ...]:
    if template == own:
        return ()
    if template is None:
        return ("It has no chat template, the model has one.",)
    if own is None:
        return ("It has a chat template, the model has none.",)
    return ("Its chat template is not the model's: what it answers when served may differ.",)


def _template(folder: Path) -> str | None:
    """The chat template of a folder: a file of its own, or a setting of the tokenizer."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8").strip()
    config = folder / "tokenizer_config.json"
    said = read_object(config).get("chat_template") if config.is_file() else None
    return said.strip() if isinstance(said, str) else None


def _template_of_gguf(path: Path) -> str | None:
    from quantlab.formats.gguf import text_of

    said = text_of(path, "tokenizer.chat_template")
    return said.strip() if said else None
