"""Read what a folder's files say of their quantization."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantlab.formats.json_file import read_object

MODELOPT = "hf_quant_config.json"
"""ModelOpt's own file; its older checkpoints say nothing in config.json."""
_SECTIONS = ("quantization_config", "compression_config")
"""The second one is of older checkpoints of compressed-tensors."""


def section_of(config: Mapping[str, Any]) -> tuple[str, Any]:
    """The name and content of the section of config.json that describes a quantization, of a multimodal
    release's language part too (Kimi K2.5 has it there); ("", None) for none."""
    text = config.get("text_config")
    for part in (config, text if isinstance(text, dict) else {}):
        for key in _SECTIONS:
            if said := part.get(key):
                return key, said
    return "", None


def quantization_config(folder: Path) -> dict[str, Any]:
    """The checkpoint's own description of its quantization, {} for an unquantized one.

    It is a section of config.json, else `quantization` of ModelOpt's file. Raises QuantlabError for files
    that are not JSON objects."""
    _, said = section_of(read_object(folder / "config.json"))
    if isinstance(said, dict):
        return _with_modelopt(said)
    if not (folder / MODELOPT).is_file():
        return {}
    file = read_object(folder / MODELOPT)
    section = file.get("quantization")
    return {"quant_method": "modelopt", **section} if isinstance(section, dict) and section else {}


def _with_modelopt(said: dict[str, Any]) -> dict[str, Any]:
    """With the mark that some of ModelOpt's checkpoints leave out."""
    producer = said.get("producer")
    if "quant_method" not in said and isinstance(producer, dict) and producer.get("name") == "modelopt":
        return {"quant_method": "modelopt", **said}
    return said
