"""Round the weights of a dense model to the nearest value of a plain grid, in place: every better method is
compared with it.

Each group of columns of a row has 2^bits equally spaced values. Symmetric: from -2^(bits - 1) to
2^(bits - 1) - 1 times 2 max|w| / (2^bits - 1), as GPTQ's. Otherwise from min(w, 0) to max(w, 0), with a whole
number as the zero point, as the paper of AWQ. No text and no search."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from quantlab.formats.unquantized import StoredWeight, kind_of
from quantlab.methods._contract import Grid
from quantlab.records import WeightKind

if TYPE_CHECKING:
    import torch

FORMULA_VERSION = 2
"""Raised when the rounded weights become others: kept results of an older formula are not taken."""
ROUNDED: tuple[WeightKind, ...] = ("linears", "experts")
"""Kinds that are rounded, where the variant quantized them."""
_SMALLEST_SCALE = 1e-30


def round_to_nearest(weight: torch.Tensor, bits: int, grid: Grid) -> None:
    """Round a weight (..., rows, columns) in place; a last group that is shorter has a scale of its own."""
    columns = weight.shape[-1]
    size = columns if grid.group_size <= 0 else min(grid.group_size, columns)
    whole = columns - columns % size
    _round(weight[..., :whole].unflatten(-1, (-1, size)), bits, grid.symmetric)
    if whole < columns:
        _round(weight[..., whole:].unsqueeze(-2), bits, grid.symmetric)


def _round(groups: torch.Tensor, bits: int, symmetric: bool) -> None:
    """A view (..., groups, columns of a group), in place, in float32."""
    exact, steps = groups.float(), 2**bits - 1
    if symmetric:
        scale = (exact.abs().amax(-1, keepdim=True) * (2 / steps)).clamp_min(_SMALLEST_SCALE)
        low = -(2.0 ** (bits - 1))
        groups.copy_((exact / scale).round_().clamp_(low, low + steps) * scale)
    else:
        smallest = exact.amin(-1, keepdim=True).clamp_max(0)
        scale = ((exact.amax(-1, keepdim=True).clamp_min(0) - smallest) / steps).clamp_min(_SMALLEST_SCALE)
        zero = (-smallest / scale).round()
        groups.copy_((((exact / scale).round_() + zero).clamp_(0, steps) - zero) * scale)


def round_model(model: Any, bits: int, grid: Grid, kinds: Collection[WeightKind] = ROUNDED) -> int:
    """Round a transformers model's matrices of these kinds in place, in groups of inputs; their number of
    weights."""
    import torch

    from quantlab.models.matrices import inputs_first

    rounded, turned = 0, inputs_first(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if kind_of_parameter(name, parameter) in kinds:
                for matrix in parameter.data if parameter.ndim > 2 else (parameter.data,):
                    round_to_nearest(matrix.mT if name in turned else matrix, bits, grid)
                rounded += parameter.numel()
    return rounded


def kind_of_parameter(name: str, parameter: torch.Tensor) -> WeightKind:
    """The kind of a model's parameter, as of a stored tensor."""
    shape = tuple(size for size in parameter.shape if size != 1)
    return kind_of(StoredWeight(name, "BF16", shape, parameter.numel()))
