"""Check the safetensors files of a model's folder by their headers, without loading them.

A file is an unsigned 64-bit header length, a JSON header with each tensor's dtype, shape and byte range, and
the data."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

from quantlab.errors import QuantlabError
from quantlab.formats.json_file import parse_json, read_object

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
FLOATS = ("F64", "F32", "F16", "BF16")
"""Types of weights that are not quantized."""
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_NOT_WEIGHTS = (
    "training_args.bin",
    "optimizer.pt",
    "optimizer.bin",
    "scheduler.pt",
    "rng_state.pth",
    "scaler.pt",
)
_MAX_HEADER_BYTES = 100_000_000  # the safetensors library's own limit
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


def width_bits(dtype: str) -> int:
    """Bits of one element of a type by its name in a header, 0 for an unknown one."""
    return _BITS.get(dtype, 0)


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors files that make up the model. Raises QuantlabError where there are none or one is
    missing."""
    return tuple(
        folder / name
        for name in weight_names([p.name for p in folder.iterdir()], read_index(folder), str(folder))
    )


def weight_names(names: list[str], index: dict[str, str], where: str) -> tuple[str, ...]:
    """Which of the file names at a place are the model's weights, by its index (tensor to file, empty where
    there is none).

    Raises QuantlabError where there are no safetensors or one that the index names is missing.
    """
    missing = sorted(set(index.values()) - set(names))
    if missing:
        listed = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise QuantlabError(
            f"{where} is incomplete: {INDEX} names {listed}, which is not there; download the model again"
        )
    if index:
        if SINGLE in names and SINGLE not in index.values():
            raise QuantlabError(
                f"{where} has {SINGLE} beside {INDEX}, which does not name it: libraries would load one or"
                " the other; remove the one that is not the model"
            )
        return tuple(sorted(set(index.values())))
    if SINGLE in names:
        return (SINGLE,)
    raise QuantlabError(_why_none(names, where))


def _why_none(names: list[str], where: str) -> str:
    pickled = sorted(name for name in names if name.endswith(PICKLES) and name not in _NOT_WEIGHTS)
    if others := sorted(name for name in names if name.endswith(".safetensors")):
        return (
            f"{where} has {others[0]} but neither {SINGLE} nor {INDEX}: rename a single file, or save the"
            " model again with its index"
        )
    if pickled:
        return (
            f"{where} has its weights only as pickle ({pickled[0]}), which can run any code when it is read:"
            " not opened; convert it where you trust it with transformers'"
            " `from_pretrained(...).save_pretrained(...)`, which writes safetensors"
        )
    if files := sorted(name for name in names if name.endswith(".gguf")):
        return f"{where} has no safetensors but {files[0]}: name the GGUF file itself as the model"
    return f"{where} has no weights: {SINGLE} or {INDEX} is expected"


def read_index(folder: Path) -> dict[str, str]:
    """Which file holds which tensor, by the folder's index; empty where it has none. Raises QuantlabError."""
    path = folder / INDEX
    if not path.is_file():
        return {}
    places = read_object(path).get("weight_map")
    if (
        not isinstance(places, dict)
        or not places
        or not all(isinstance(name, str) for name in places.values())
    ):
        raise QuantlabError(f"{path} is damaged: it holds no weight_map; download the model again")
    if outside := [name for name in places.values() if Path(name).name != name]:
        raise QuantlabError(f"{path} names {outside[0]}, which is not a file beside it: not opened")
    return places


def header(path: Path) -> dict[str, Any]:
    """The tensors of a safetensors file by name. Raises QuantlabError where the file is truncated or
    malformed."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(_MAX_HEADER_BYTES, max(size - 8, 0)):
            raise _damaged(path, f"its {size} bytes do not hold the header that it announces")
        raw = file.read(length)
    try:
        tensors = parse_json(raw)
        tensors.pop("__metadata__", None)
        end = _end_of_all(tensors)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(
            path, f"its header does not make sense: {' '.join(str(error).split())[:120]}"
        ) from None
    if 8 + length + end != size:
        raise _damaged(path, f"it has {size} bytes and its header describes {8 + length + end}")
    return dict(tensors)


def _end_of_all(tensors: dict[str, Any]) -> int:
    """The byte after the last tensor. Raises ValueError where ranges overlap or leave bytes between them."""
    end, before = 0, ""
    for begin, after, name in sorted((*_range(name, entry), name) for name, entry in tensors.items()):
        if begin != end:
            raise ValueError(f"{name:.60} begins at byte {begin}, and {before or 'the data'} ends at {end}")
        end, before = after, f"{name:.60}"
    return end


def _range(name: str, entry: dict[str, Any]) -> tuple[int, int]:
    """First byte of a tensor and the one after its last. Raises ValueError where its shape has another
    size."""
    begin, end = entry["data_offsets"]
    shape, bits = entry["shape"], _BITS.get(entry["dtype"])
    if not all(type(number) is int and number >= 0 for number in (begin, end, *shape)) or begin > end:
        raise ValueError(f"{name:.60} has a shape or a range of bytes that no tensor has")
    if bits is not None and math.prod(shape) * bits != 8 * (end - begin):
        raise ValueError(f"{name:.60} has {end - begin} bytes for shape {shape} of {entry['dtype']}")
    return begin, end


def _damaged(path: Path, why: str) -> QuantlabError:
    return QuantlabError(f"{path} is truncated or not safetensors: {why}; download or save it again")


def check_weights(folder: Path) -> None:
    """Raise QuantlabError where a weight file is missing, truncated, malformed, or lacks a tensor that the
    index names."""
    index = read_index(folder)
    if index and not isinstance(read_object(folder / INDEX).get("metadata"), dict):
        raise QuantlabError(
            f"{folder / INDEX} is damaged: it holds no metadata, without which transformers does not load it;"
            " save it again"
        )
    places: dict[str, str] = {}
    for path in weight_files(folder):
        there = header(path)
        if twice := next((name for name in there if name in places), None):
            raise QuantlabError(
                f"{folder} holds the tensor {twice} twice, in {places[twice]} and {path.name}: save the model"
                " again"
            )
        places |= dict.fromkeys(there, path.name)
        lacking = [name for name, file in index.items() if file == path.name and name not in there]
        if lacking:
            raise _damaged(path, f"{INDEX} places {lacking[0]} in it, which it lacks")


def parameters(folder: Path) -> int:
    """Elements of all tensors of the model, tied ones once as they are stored once. Raises QuantlabError as
    `check_weights`."""
    return sum(math.prod(entry["shape"]) for path in weight_files(folder) for entry in header(path).values())
