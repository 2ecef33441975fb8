"""Read what a folder's files say of their quantization."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quantlab.formats.json_file import read_object

MODELOPT = "hf_quant_config.json"
"""ModelOpt's own file; its older checkpoints say nothing in config.json."""


def quantization_config(folder: Path) -> dict[str, Any]:
    """The checkpoint's own description of its quantization, {} for an unquantized one.

    It is `quantization_config` of config.json (`compression_config` in older checkpoints of
    compressed-tensors), else `quantization` of ModelOpt's file. Raises QuantlabError for files that are not
    JSON objects."""
    config = read_object(folder / "config.json")
    for key in ("quantization_config", "compression_config"):
        if isinstance(said := config.get(key), dict) and said:
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
