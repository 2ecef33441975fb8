"""Somebody else's checkpoint: what it is, and the variant that it becomes here.

Formats are those of the methods: what auto-gptq and autoawq wrote is what GPTQModel reads.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from pydantic import Field

from quantlab import methods
from quantlab.checkpoint import FileEntry, list_files
from quantlab.errors import QuantlabError, unknown
from quantlab.names import Variant
from quantlab.records import Frozen

_METHODS = {"gptq": "gptq", "awq": "awq", "bitsandbytes": "bitsandbytes", "auto-round": "autoround", "autoround": "autoround", "fp8": "fp8"}
_WIDTHS = (2, 3, 4, 5, 6, 8, 16)


class Settings(Frozen):
    """The settings of a variant whose checkpoint somebody else made."""

    checkpoint: str = Field(min_length=1)
    """The folder, or the GGUF file."""


def weight_files(path: Path) -> dict[str, FileEntry]:
    """The files that make the checkpoint, with sizes and hashes."""
    if path.is_file():
        return {path.name: list_files(path.parent)[path.name]}
    return {n: f for n, f in list_files(path).items() if "/" not in n and n.endswith((".safetensors", ".json", ".model", ".txt", ".jinja"))}


def identify(path: Path) -> Variant:
    """The variant `method-bits-ext_<6 hex digits of its hash>`. Raises QuantlabError for what is no quantized checkpoint."""
    method, bits = _gguf(path) if path.is_file() else _safetensors(path)
    entries = sorted((name, entry.sha256) for name, entry in weight_files(path).items())
    return Variant(method, bits, f"ext_{hashlib.sha256(repr(entries).encode()).hexdigest()[:6]}")


def _gguf(path: Path) -> tuple[str, int]:
    """A GGUF file's nominal width: that of the type that it says it has, else the one nearest to its stored bits per weight."""
    from quantlab.gguf.header import declared_type, stored_tensors
    from quantlab.source import check_gguf

    check_gguf(path)
    declared = re.search(r"\d+", declared_type(path) or "")
    if declared and int(declared[0]) in _WIDTHS:
        return "gguf", int(declared[0])
    blocks = [t for t in stored_tensors(path) if t.name.startswith("blk.") and t.elements > 65536] or stored_tensors(path)
    found = 8 * sum(t.bytes for t in blocks) / sum(t.elements for t in blocks)
    return "gguf", min(_WIDTHS, key=lambda width: abs(width + (0.5 if width < 16 else 0) - found))


def _safetensors(path: Path) -> tuple[str, int]:
    from quantlab.source import check_folder, read_config

    check_folder(path)
    config: dict[str, Any] = read_config(path).get("quantization_config") or {}
    name = str(config.get("quant_method", ""))
    if not name:
        raise QuantlabError(f"{path} is not quantized: its config.json has no quantization_config; give it as MODEL instead")
    if name not in _METHODS:
        raise unknown("quantization format", name, _METHODS, f"in {path}/config.json")
    method = _METHODS[name]
    bits = config.get("bits") or (8 if config.get("load_in_8bit") or method == "fp8" else 4)
    if int(bits) not in methods.load(method).BITS and method != "awq":
        raise QuantlabError(f"{path} says {bits} bits of {method}: known are {', '.join(map(str, methods.load(method).BITS))}")
    return method, int(bits)
