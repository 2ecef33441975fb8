"""Read a node of llama.cpp's compute graph with ctypes.

The structure is ggml's (`struct ggml_tensor` in ggml.h); its size is checked against the library's before it
is used."""

from __future__ import annotations

import ctypes
import functools
from typing import TYPE_CHECKING, Any

from quantlab.formats.llama_log import llama

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_OBJECT_BYTES = 32
"""`struct ggml_object`, which ggml_tensor_overhead counts as well."""


class Node(ctypes.Structure):
    """`struct ggml_tensor`."""

    type: int
    op: int
    ne: Any
    nb: Any
    src: Any
    name: bytes


Node._fields_ = [
    ("type", ctypes.c_int),
    ("buffer", ctypes.c_void_p),
    ("ne", ctypes.c_int64 * 4),
    ("nb", ctypes.c_size_t * 4),
    ("op", ctypes.c_int),
    ("op_params", ctypes.c_int32 * 16),
    ("flags", ctypes.c_int32),
    ("src", ctypes.POINTER(Node) * 10),
    ("view_src", ctypes.c_void_p),
    ("view_offs", ctypes.c_size_t),
    ("data", ctypes.c_void_p),
    ("name", ctypes.c_char * 64),
    ("extra", ctypes.c_void_p),
    ("padding", ctypes.c_char * 8),
]


@functools.cache
def _library() -> Any:
    """ggml's functions, with their types."""
    library = llama()._lib
    library.ggml_tensor_overhead.restype = ctypes.c_size_t
    library.ggml_op_name.restype, library.ggml_op_name.argtypes = ctypes.c_char_p, [ctypes.c_int]
    library.ggml_nbytes.restype, library.ggml_nbytes.argtypes = ctypes.c_size_t, [ctypes.c_void_p]
    library.ggml_backend_tensor_get.argtypes = [
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_size_t,
    ]
    expected = library.ggml_tensor_overhead() - _OBJECT_BYTES
    assert ctypes.sizeof(Node) == expected, (
        f"ggml_tensor has {expected} bytes in this llama.cpp, not {ctypes.sizeof(Node)}"
    )
    return library


@functools.cache
def operation(op: int) -> str:
    """The operation's name, such as MUL_MAT."""
    return str(_library().ggml_op_name(op).decode())


def weight_name(node: Node) -> str:
    """The weight's own name: copies for a device are called `CUDA0#blk.0.attn_k.weight#0`."""
    name = node.name.decode()
    return name.split("#")[1] if "#" in name else name


def values(node: Node, dtype: type[Any]) -> NDArray[Any]:
    """A copy of the node's data, shape ne[3], ne[2], ne[1], ne[0], wherever it lies."""
    import numpy as np

    raw = np.empty(_library().ggml_nbytes(ctypes.addressof(node)), np.uint8)
    _library().ggml_backend_tensor_get(ctypes.addressof(node), raw.ctypes.data, 0, raw.nbytes)
    return np.ndarray(tuple(node.ne)[::-1], dtype, raw, strides=tuple(node.nb)[::-1])


def chosen_experts(product: Node) -> NDArray[Any]:
    """Of a MUL_MAT_ID: the experts (tokens, per token) that the router chose, whatever way it went."""
    import numpy as np

    chosen: NDArray[np.int32] = values(product.src[2].contents, np.int32)[0, 0]
    return chosen
