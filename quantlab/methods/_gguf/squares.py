"""Square the inputs of a matrix product of llama.cpp's graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from quantlab.engines._llama.node import Node, chosen_experts, values

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Squares(NamedTuple):
    """Sums of squared inputs (matrices, columns) and the tokens in them (1,) or (experts,)."""

    sums: NDArray[np.float64]
    counts: NDArray[np.float64]


def dense_squares(node: Node) -> Squares:
    """Of a MUL_MAT: inputs with a third dimension go to the weight's matrix of the same index."""
    import numpy as np

    weight, x = node.src[0].contents, values(node.src[1].contents, np.float32)
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
    squares = np.square(values(node.src[1].contents, np.float32)[0])  # (tokens, 1 or used, columns)
    chosen = chosen_experts(node)
    sums = np.zeros((experts, squares.shape[2]))
    for used in range(chosen.shape[1]):
        rows = squares[:, used % squares.shape[1]]
        for expert in np.unique(chosen[:, used]):
            sums[expert] += rows[chosen[:, used] == expert].sum(axis=0)
    return Squares(sums, np.bincount(chosen.reshape(-1), minlength=experts).astype(np.float64))
