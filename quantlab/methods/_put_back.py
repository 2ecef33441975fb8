"""Put a quantized text model back into its multimodal release: the checkpoint that the release's own class
loads.

Tensors of the text model get the release's names, those of towers and projectors are copied byte for byte.
The configuration is the release's with the quantization's beside it, its modules named as the release's class
names them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from quantlab.errors import CellFailure
from quantlab.files import write_json
from quantlab.formats.copying import copy_tensors, name_shards
from quantlab.formats.json_file import read_object
from quantlab.formats.safetensors import FLOATS, INDEX, header, weight_files
from quantlab.models.stacked import is_apart, is_stacked, write_together
from quantlab.workspace.checkpoint import model_files
from quantlab.workspace.release import Release

_LEFT = ("modules_to_not_convert", "llm_int8_skip_modules", "ignore")
"""Lists of modules that stay in 16 bits: of AWQ and FP8, bitsandbytes, and compressed-tensors."""
_BLOCKS = ("block_name_to_quantize", "to_quant_block_names")
"""The list of blocks in which layers are quantized: of GPTQ and auto-round."""
_PATTERNS = ("dynamic", "extra_config")
"""Settings by module: of GPTQModel and auto-round."""
_NOT_ITS_OWN = (".safetensors", INDEX, "config.json")


def put_back(folder: Path, origin: Path, release: Release) -> None:
    """Turn the text model's checkpoint in `folder` into one of the release that lies at `origin`.

    Raises CellFailure where the checkpoint holds a tensor that the release has no place for."""
    quantized = _quantization(folder, release)
    _write_weights(folder, origin, release)
    config = read_object(origin / "config.json")
    if quantized:
        config["quantization_config"] = quantized
    write_json(folder / "config.json", config)
    for name in model_files(origin):
        if not name.endswith(_NOT_ITS_OWN):
            shutil.copyfile(origin / name, folder / name)


def _write_weights(folder: Path, origin: Path, release: Release) -> None:
    made = weight_files(folder)
    stacked = any(is_stacked(name) for path in weight_files(origin) for name in header(path))
    whole = _unquantized_experts(made) if stacked else frozenset[str]()
    parts: list[Path] = []
    experts: dict[str, str] = {}
    for number, path in enumerate(made):
        names = {name: _stored(name, release) for name in header(path)}
        experts |= {name: names.pop(name) for name in [*names] if name in whole}
        if names:
            parts.append(folder / f"part-text-{number}")
            copy_tensors(path, names, parts[-1])
    if experts:
        parts += write_together(made, experts, weight_files(origin), folder / "part-experts")
    for number, path in enumerate(weight_files(origin)):
        towers = {name: name for name in header(path) if release.is_of_tower(name)}
        if towers:
            parts.append(folder / f"part-tower-{number}")
            copy_tensors(path, towers, parts[-1])
    for path in (*made, folder / INDEX):
        path.unlink(missing_ok=True)
    name_shards(folder, parts)


def _unquantized_experts(made: Iterable[Path]) -> frozenset[str]:
    """Matrices of single experts in 16 bits, of layers that have no other: codes stay expert by expert."""
    types = {name: entry["dtype"] for path in made for name, entry in header(path).items() if is_apart(name)}
    rounded = {_layer(name) for name, kind in types.items() if kind not in FLOATS}
    return frozenset(name for name in types if _layer(name) not in rounded)


def _layer(name: str) -> str:
    return name.rpartition(".experts.")[0]


def _stored(name: str, release: Release) -> str:
    stored = release.stored_name(name)
    if stored is None:
        raise CellFailure(
            "unsupported",
            f"the quantized text model holds {name}, which a {release.model_type} release lacks",
        )
    return stored


def _quantization(folder: Path, release: Release) -> dict[str, Any]:
    """What the checkpoint says of its quantization, with the release's names of modules."""
    said: dict[str, Any] = read_object(folder / "config.json").get("quantization_config") or {}
    section = renamed(said, release)
    path = folder / "quantize_config.json"
    if path.is_file():
        write_json(path, renamed(json.loads(path.read_text(encoding="utf-8")), release))
    return section


def renamed(said: dict[str, Any], release: Release) -> dict[str, Any]:
    """A quantization's description with the modules of the release's class instead of the text model's."""
    section = dict(said)
    method = str(section.get("quant_method", ""))
    for key in _LEFT:
        if key in section or key == _key_of_left(method):
            towers = [_beneath(name) for name in release.towers] if key == "ignore" else release.towers
            section[key] = [*(_module(name, release) for name in section.get(key) or ()), *towers]
            if method == "bitsandbytes":
                section[key].append(release.head_module)
            section[key] = sorted(set(section[key]))
    for key in ("modules_in_block_to_quantize",):
        if section.get(key):
            section[key] = [[_module(name, release) for name in names] for names in section[key]]
    for key in _BLOCKS:
        if isinstance(section.get(key), str):
            section[key] = ",".join(_module(name, release) for name in section[key].split(","))
        elif isinstance(section.get(key), list):
            section[key] = [_module(name, release) for name in section[key]]
    if method == "gptq" and not section.get("block_name_to_quantize"):
        section["block_name_to_quantize"] = f"{release.body_module}.layers"
    for key in _PATTERNS:
        if isinstance(section.get(key), dict):
            section[key] = {_module(name, release): value for name, value in section[key].items()}
    return section


def _key_of_left(method: str) -> str | None:
    """Under which key a format lists what stays in 16 bits, and is given the towers."""
    keys = {
        "awq": "modules_to_not_convert",
        "fp8": "modules_to_not_convert",
        "bitsandbytes": "llm_int8_skip_modules",
        "compressed-tensors": "ignore",
    }
    return keys.get(method)


def _beneath(tower: str) -> str:
    """What compressed-tensors reads as a tower and every module in it: its names stand for themselves alone.
    A server may call what stands before a tower otherwise."""
    return f"re:(.*\\.)?{re.escape(tower.rpartition('.')[2])}(\\..*)?$"


def _module(name: str, release: Release) -> str:
    """The release's name of a module; what names none of the text model's stays."""
    return release.module_name(name) or name
