"""Find the matrices of a model that F16 cannot hold: bfloat16 and float32 reach further in both directions.

F16's largest number is 65,504, and below 6e-8 everything is 0. Vectors are not looked at: the converter
writes them in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from quantlab.formats.safetensors import header, weight_files

_WIDER = ("BF16", "F32", "F64")
MOST_ERROR = 2**-9
"""Of a matrix's norm: the error of bfloat16's own rounding. F16 rounds float32 to 1.4e-4."""


class BeyondF16(NamedTuple):
    """A matrix that F16 would change."""

    name: str
    dtype: str
    how: str
    """`overflow` or `become 0`."""


def beyond_f16(folder: Path) -> list[BeyondF16]:
    """Every such matrix of a folder's safetensors, one matrix in memory at a time."""
    from safetensors import safe_open

    beyond = []
    for path in weight_files(folder):
        wide = {
            name: e["dtype"]
            for name, e in header(path).items()
            if e["dtype"] in _WIDER and len(e["shape"]) > 1
        }
        with safe_open(path, framework="pt") as file:
            for name, dtype in wide.items():
                if how := _how(file.get_tensor(name)):
                    beyond.append(BeyondF16(name, dtype, how))
    return beyond


def _how(values: Any) -> str | None:
    """What F16 does to a matrix; None where it holds it."""
    import torch

    exact = values.float()
    rounded = exact.to(torch.float16).float()
    if not bool(torch.isfinite(rounded).all()) and bool(torch.isfinite(exact).all()):
        return "overflow"
    return "become 0" if float((rounded - exact).norm()) > MOST_ERROR * float(exact.norm()) else None
