"""Read a node of llama.cpp's compute graph with ctypes, and square a matrix product's inputs.

The structure is ggml's (`struct ggml_tensor` in ggml.h); its size is checked against the library's before it
is used."""

from __future__ import annotations

import ctypes
import functools
from typing import TYPE_CHECKING, Any, NamedTuple

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


class Squares(NamedTuple):
    """Sums of squared inputs (matrices, columns) and the tokens in them (1,) or (experts,)."""

    sums: NDArray[np.float64]
    counts: NDArray[np.float64]


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


def _values(node: Node, dtype: type[Any]) -> NDArray[Any]:
    """A copy of the node's data, shape ne[3], ne[2], ne[1], ne[0], wherever it lies."""
    import numpy as np

    raw = np.empty(_library().ggml_nbytes(ctypes.addressof(node)), np.uint8)
    _library().ggml_backend_tensor_get(ctypes.addressof(node), raw.ctypes.data, 0, raw.nbytes)
    return np.ndarray(tuple(node.ne)[::-1], dtype, raw, strides=tuple(node.nb)[::-1])


def dense_squares(node: Node) -> Squares:
    """Of a MUL_MAT: inputs with a third dimension go to the weight's matrix of the same index."""
    import numpy as np

    weight, x = node.src[0].contents, _values(node.src[1].contents, np.float32)
    matrices = weight.ne[2] * weight.ne[3]
    each = np.square(x).sum(axis=2)
    sums = np.zeros((matrices, x.shape[3]))
    for i3 in range(x.shape[0]):
        for i2 in range(x.shape[1]):
            sums[(i3 % weight.ne[3]) * weight.ne[2] + i2 % weight.ne[2]] += each[i3, i2]
    return Squares(sums, np.array([x.shape[0] * x.shape[1] * x.shape[2] / matrices]))


def expert_squares(node: Node) -> Squares:
    """Of a MUL_MAT_ID: each token's inputs go to the experts that the router chose for it."""
    import numpy as np

    experts = node.src[0].contents.ne[2]
    squares = np.square(_values(node.src[1].contents, np.float32)[0])  # (tokens, 1 or used, columns)
    chosen = _values(node.src[2].contents, np.int32)[0, 0]  # (tokens, used)
    sums = np.zeros((experts, squares.shape[2]))
    for used in range(chosen.shape[1]):
        rows = squares[:, used % squares.shape[1]]
        for expert in np.unique(chosen[:, used]):
            sums[expert] += rows[chosen[:, used] == expert].sum(axis=0)
    return Squares(sums, np.bincount(chosen.reshape(-1), minlength=experts).astype(np.float64))
