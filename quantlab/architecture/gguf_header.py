"""Read the header of a GGUF file, or of all its parts: keys and tensors. Uses the standard library alone.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from quantlab.errors import QuantlabError
from quantlab.formats.ggml import TENSOR_TYPES
from quantlab.formats.gguf_parts import parts_of

MAGIC = b"GGUF"
_SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
_STRING, _ARRAY, _LONGEST_STRING, _MOST_ITEMS, _DEEPEST = 8, 9, 2**24, 2**24, 8


class GgufTensor(NamedTuple):
    """One tensor."""

    shape: tuple[int, ...]
    """As ggml orders it: columns first."""
    type: str
    bytes: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


class GgufHeader(NamedTuple):
    """What stands before a GGUF file's data."""

    metadata: dict[str, Any]
    tensors: dict[str, GgufTensor]
    file_bytes: int


def is_gguf(path: Path) -> bool:
    """Whether a file begins as GGUF files do."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == MAGIC


def read_header(path: Path) -> GgufHeader:
    """A GGUF file's keys and tensors. Raises QuantlabError where its header cannot be read."""
    try:
        with path.open("rb") as file:
            metadata, tensors = _header(file)
            return GgufHeader(metadata, tensors, path.stat().st_size)
    except (struct.error, UnicodeDecodeError, ValueError) as error:
        raise QuantlabError(
            f"{path} is truncated or damaged: its header cannot be read ({error}); download it again"
        ) from None


def read_whole(path: Path) -> GgufHeader:
    """The header of a GGUF file, with the tensors of all its parts where it is the first of several. Raises
    QuantlabError where a part is missing."""
    headers = [read_header(part) for part in parts_of(path)]
    parts = headers[0].metadata.get("split.count") or 1
    if parts != len(headers):
        raise QuantlabError(
            f"{path} says that it is one of {parts} parts, and its name that it is one of {len(headers)}:"
            " name the parts as llama.cpp does, NAME-00001-of-00003.gguf"
        )
    tensors = {name: tensor for header in headers for name, tensor in header.tensors.items()}
    return GgufHeader(headers[0].metadata, tensors, sum(header.file_bytes for header in headers))


def _header(file: BinaryIO) -> tuple[dict[str, Any], dict[str, GgufTensor]]:
    if file.read(4) != MAGIC:
        raise ValueError("it does not begin with GGUF")
    version, tensors, pairs = struct.unpack("<IQQ", file.read(20))
    if version not in (2, 3) or max(tensors, pairs) > _MOST_ITEMS:
        raise ValueError(f"version {version} with {tensors} tensors")
    metadata = {}
    for _ in range(pairs):
        key = _text(file)
        metadata[key] = _value(file, _number(file, "<I"))
    described = {}
    for _ in range(tensors):
        name, dimensions = _text(file), _number(file, "<I")
        if dimensions > 8:
            raise ValueError(f"a tensor of {dimensions} dimensions")
        shape = tuple(_number(file, "<Q") for _ in range(dimensions))
        described[name] = _tensor(shape, _number(file, "<I"))
        _number(file, "<Q")  # offset
    return metadata, described


def _tensor(shape: tuple[int, ...], number: int) -> GgufTensor:
    if number not in TENSOR_TYPES:
        raise ValueError(f"a tensor of type {number}, which is not known here")
    name, weights, size = TENSOR_TYPES[number]
    if shape and shape[0] % weights:
        raise ValueError(f"a row of {shape[0]} in blocks of {weights}")
    return GgufTensor(shape, name, math.prod(shape) // weights * size)


def _number(file: BinaryIO, form: str) -> Any:
    return struct.unpack(form, file.read(struct.calcsize(form)))[0]


def _bytes(file: BinaryIO) -> bytes:
    length = _number(file, "<Q")
    if length > _LONGEST_STRING:
        raise ValueError(f"a string of {length} bytes")
    data = file.read(length)
    if len(data) < length:
        raise ValueError("it ends within a string")
    return data


def _text(file: BinaryIO) -> str:
    return _bytes(file).decode()


def _value(file: BinaryIO, kind: int, depth: int = 0) -> Any:
    if kind == _STRING:
        return _bytes(file).decode(errors="replace")
    if kind != _ARRAY:
        if kind not in _SCALARS:
            raise ValueError(f"a value of type {kind}")
        return _number(file, _SCALARS[kind])
    inner, length = _number(file, "<I"), _number(file, "<Q")
    if length > _MOST_ITEMS or depth > _DEEPEST:
        raise ValueError(f"a list of {length} values, {depth} lists around it")
    return [_value(file, inner, depth + 1) for _ in range(length)]
