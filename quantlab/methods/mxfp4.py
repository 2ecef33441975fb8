"""Read MXFP4 as gpt-oss is released: experts in 4-bit floating point with a scale per 32 weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantlab.methods._contract import Grid, Serving
from quantlab.methods._read_only import UNPACKED, ReadOnly

_GROUP = 32


class Mxfp4(ReadOnly):
    """MXFP4 through transformers."""

    name = "mxfp4"
    summary = "gpt-oss as released, experts in MXFP4; read only"
    widths_read = (4,)
    requires = ("torch", "transformers")
    marks = ("mxfp4",)

    def grid_in(self, config: Mapping[str, Any]) -> Grid:
        """Of its blocks, whose values are not equally spaced."""
        return Grid(_GROUP, symmetric=True)

    def reading_notes(self, config: Mapping[str, Any], device: str) -> tuple[str, ...]:
        """What a reader of the numbers must know."""
        return () if device.startswith("cuda") else (UNPACKED,)

    def serving(self, bits: int, source: str) -> Serving:
        """vLLM finds the format by itself."""
        return Serving(notes=("vLLM finds MXFP4 in config.json, without a flag",))


METHOD = Mxfp4()
