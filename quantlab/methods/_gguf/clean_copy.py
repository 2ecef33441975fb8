"""Copy a model's folder without code, for llama.cpp's converter, which trusts every repository.

In several of its model families the converter calls transformers with `trust_remote_code=True`. It is given a
folder of links to the weights and tokenizer files, and JSON files without the keys that lead to code;
config.json has the fields that the release spells in another way than transformers (spelling.py)."""

from __future__ import annotations

import json
from pathlib import Path

from quantlab.errors import QuantlabError
from quantlab.methods._gguf.spelling import as_released
from quantlab.models.code import DATA_ONLY, without_code

KEPT = (".json", ".safetensors", ".model", ".txt", ".jinja", ".tiktoken", ".jsonl", ".md")
"""Endings of files that hold data alone; what is pickled or Python is left out."""


def clean_copy(source: Path, folder: Path) -> Path:
    """A folder of the source's name inside `folder`, since the converter writes the name into the file that
    it makes.

    Raises QuantlabError where a JSON file cannot be read.
    """
    target = folder / source.resolve().name
    target.mkdir(parents=True)
    for path in sorted(source.iterdir()):
        if path.is_file() and path.suffix in KEPT:
            _place(path, target / path.name)
    templates = source / "additional_chat_templates"
    if templates.is_dir():
        (target / templates.name).mkdir()
        for path in templates.glob("*.jinja"):
            _place(path, target / templates.name / path.name)
    return target


def _place(path: Path, target: Path) -> None:
    """Link the file, or write its JSON without the keys that lead to code."""
    if path.suffix != ".json" or path.name in DATA_ONLY or path.name.endswith(".index.json"):
        target.symlink_to(path.resolve())
        return
    try:
        cleaned = without_code(path.read_bytes())
    except ValueError as error:
        raise QuantlabError(
            f"{path} is not JSON: {' '.join(str(error).split())[:160]}; download or save it again"
        ) from None
    if path.name == "config.json":
        config = json.loads(path.read_bytes()) if cleaned is None else cleaned
        released = as_released(config) if isinstance(config, dict) else config
        cleaned = None if cleaned is None and released == config else released
    if cleaned is None:
        target.symlink_to(path.resolve())
    else:
        target.write_text(json.dumps(cleaned, indent=2), encoding="utf-8")
