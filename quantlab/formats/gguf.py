"""Read a GGUF file's header through ggml: the `gguf` package takes seconds for a large vocabulary."""

from __future__ import annotations

import collections
import ctypes
import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from quantlab.errors import CellFailure
from quantlab.formats.gguf_parts import parts_of
from quantlab.formats.gguf_types import FILE_TYPES
from quantlab.formats.llama_log import llama, messages

_UINT32, _TEXT = 4, 8  # enum gguf_type


class StoredTensor(NamedTuple):
    """One tensor of a GGUF file."""

    name: str
    type: str
    """ggml's name in capitals, such as Q4_K."""
    bytes: int
    elements: int
    shape: tuple[int, ...]
    """In ggml's order, columns first, always four numbers."""


class _Parameters(ctypes.Structure):
    """`struct gguf_init_params`."""

    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))


@functools.cache
def _library() -> Any:
    library, header, index = llama()._lib, ctypes.c_void_p, ctypes.c_int64
    types: dict[str, tuple[Any, list[Any]]] = {
        "gguf_init_from_file": (header, [ctypes.c_char_p, _Parameters]),
        "gguf_free": (None, [header]),
        "gguf_get_n_tensors": (ctypes.c_int64, [header]),
        "gguf_get_data_offset": (ctypes.c_size_t, [header]),
        "gguf_get_tensor_name": (ctypes.c_char_p, [header, index]),
        "gguf_get_tensor_ne": (ctypes.POINTER(ctypes.c_int64), [header, index]),
        "gguf_get_tensor_offset": (ctypes.c_size_t, [header, index]),
        "gguf_get_tensor_size": (ctypes.c_size_t, [header, index]),
        "gguf_get_tensor_type": (ctypes.c_int, [header, index]),
        "gguf_find_key": (index, [header, ctypes.c_char_p]),
        "gguf_get_kv_type": (ctypes.c_int, [header, index]),
        "gguf_get_val_u32": (ctypes.c_uint32, [header, index]),
        "gguf_get_val_str": (ctypes.c_char_p, [header, index]),
        "ggml_type_name": (ctypes.c_char_p, [ctypes.c_int]),
    }
    for name, (result, arguments) in types.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def stored_tensors(path: Path) -> list[StoredTensor]:
    """Every tensor of a GGUF file and of the parts that follow it, in their order.

    Raises CellFailure where a file is damaged, QuantlabError where a part is missing."""
    return [tensor for part in parts_of(path) for tensor in _tensors(part)]


def _tensors(path: Path) -> list[StoredTensor]:
    with _header(path) as (library, header):
        begin, size = library.gguf_get_data_offset(header), path.stat().st_size
        tensors = []
        for i in range(library.gguf_get_n_tensors(header)):
            tensor = _tensor(library, header, i)
            if begin + library.gguf_get_tensor_offset(header, i) + tensor.bytes > size:
                raise CellFailure("broken_checkpoint", f"{path.name} ends before its tensor {tensor.name}")
            tensors.append(tensor)
    return tensors


def declared_type(path: Path) -> str | None:
    """The file type that the header names, such as Q4_K_M; None where it names none or a guess."""
    with _header(path) as (library, header):
        key = library.gguf_find_key(header, b"general.file_type")
        number = (
            int(library.gguf_get_val_u32(header, key))
            if key >= 0 and library.gguf_get_kv_type(header, key) == _UINT32
            else None
        )
    return next((name for name in FILE_TYPES if number is not None and constant(name) == number), None)


def text_of(path: Path, key: str) -> str | None:
    """A text of the header; None where the file has no such key or it is not text."""
    with _header(path) as (library, header):
        place = library.gguf_find_key(header, key.encode())
        if place < 0 or library.gguf_get_kv_type(header, place) != _TEXT:
            return None
        return str(library.gguf_get_val_str(header, place).decode("utf-8", "replace"))


def constant(name: str) -> int:
    """llama.cpp's number of a file type."""
    api = llama()
    number = getattr(api, f"LLAMA_FTYPE_MOSTLY_{name}", None)
    return int(api.LLAMA_FTYPE_ALL_F32 if number is None else number)


@contextmanager
def _header(path: Path) -> Iterator[tuple[Any, Any]]:
    library = _library()
    with messages() as said:
        header = (
            library.gguf_init_from_file(os.fsencode(path), _Parameters(True, None))
            if path.is_file()
            else None
        )
    if not header:
        raise CellFailure(
            "broken_checkpoint", f"{path.name} cannot be read as GGUF: {said.reason('it cannot be read')}"
        )
    try:
        yield library, header
    finally:
        library.gguf_free(header)


def _tensor(library: Any, header: Any, i: int) -> StoredTensor:
    shape = tuple(int(n) for n in library.gguf_get_tensor_ne(header, i)[:4])
    name = library.gguf_get_tensor_name(header, i).decode()
    kind = library.ggml_type_name(library.gguf_get_tensor_type(header, i)).decode().upper()
    return StoredTensor(
        name,
        kind,
        int(library.gguf_get_tensor_size(header, i)),
        shape[0] * shape[1] * shape[2] * shape[3],
        shape,
    )


def tensor_types(path: Path) -> dict[str, int]:
    """How many tensors a GGUF file has of each type."""
    return dict(collections.Counter(tensor.type for tensor in stored_tensors(path)))


def block_count(path: Path) -> int:
    """How many layers the model has, by the names of its tensors."""
    return len(
        {tensor.name.split(".")[1] for tensor in stored_tensors(path) if tensor.name.startswith("blk.")}
    )
