"""Copy tensors between safetensors files byte for byte, under names of one's own, unloaded."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from quantlab.files import write_json
from quantlab.formats.safetensors import INDEX, SINGLE, header, width_bits

_CHUNK_BYTES = 2**24


def copy_tensors(source: Path, names: Mapping[str, str], target: Path) -> int:
    """Write the tensors of a file that `names` maps to their new names; returns their bytes.

    Wider types come first, as the safetensors library writes them, so that every tensor is aligned to its
    type. Raises QuantlabError where the file is damaged."""
    entries = header(source)
    order = sorted(names, key=lambda n: (-width_bits(entries[n]["dtype"]), entries[n]["data_offsets"]))
    made, end = {}, 0
    for name in order:
        begin, after = entries[name]["data_offsets"]
        made[names[name]] = {**entries[name], "data_offsets": [end, end + after - begin]}
        end += after - begin
    text = json.dumps({"__metadata__": {"format": "pt"}, **made}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with source.open("rb") as read, target.open("wb") as write:
        data = 8 + struct.unpack("<Q", read.read(8))[0]
        write.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            begin, after = entries[name]["data_offsets"]
            read.seek(data + begin)
            _copy(read, write, after - begin)
    return end


def _copy(read: IO[bytes], write: IO[bytes], size: int) -> None:
    while size:
        piece = read.read(min(size, _CHUNK_BYTES))
        if not piece:
            raise EOFError(f"a weight file ended {size} bytes early")
        write.write(piece)
        size -= len(piece)


def name_shards(folder: Path, parts: list[Path]) -> None:
    """Give the weight files that were written into a folder the names that loaders look for, with their
    index."""
    if len(parts) == 1:
        parts[0].replace(folder / SINGLE)
        return
    places, size = {}, 0
    for number, part in enumerate(parts, 1):
        name = f"model-{number:05}-of-{len(parts):05}.safetensors"
        for tensor, entry in header(part).items():
            places[tensor] = name
            size += entry["data_offsets"][1] - entry["data_offsets"][0]
        part.replace(folder / name)
    write_json(folder / INDEX, {"metadata": {"total_size": size}, "weight_map": places})
