"""Read checkpoints of compressed-tensors, the format of llm-compressor: W4A16, W8A8, FP8, NVFP4, MXFP4.

The library unpacks the weights at the first forward pass and rounds the activations as the checkpoint says,
so that the measured loss is that of weights and activations together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantlab.methods._contract import Grid, Serving
from quantlab.methods._read_only import CACHE_IN_16_BITS, UNPACKED, ReadOnly

_FORMATS = (
    "dense",
    "naive-quantized",
    "int-quantized",
    "float-quantized",
    "pack-quantized",
    "nvfp4-pack-quantized",
    "mxfp4-pack-quantized",
    "mxfp8-quantized",
    "mixed-precision",
)
"""Formats of compressed-tensors 0.20 that were measured or are made of those that were."""
_BY_COLUMN = ("group", "dynamic", True)
"""Names of one order of columns (quant_args.py of compressed-tensors 0.20, which raises at them)."""


class CompressedTensors(ReadOnly):
    """compressed-tensors through transformers."""

    name = "compressed_tensors"
    summary = "other people's checkpoints of llm-compressor: W4A16, W8A8, FP8, NVFP4, MXFP4; read only"
    widths_read = (8, 6, 5, 4, 3, 2)
    extra = "compressed-tensors"
    requires = ("compressed-tensors", "torch", "transformers")
    loaded_by = ("compressed_tensors",)
    marks = ("compressed-tensors",)

    def width_in(self, config: Mapping[str, Any]) -> object:
        """The smallest width of a group of layers: in mixed checkpoints that of the experts."""
        widths = [weights.get("num_bits") for weights in _of_groups(config, "weights")]
        return min((width for width in widths if isinstance(width, int)), default=None)

    def grid_in(self, config: Mapping[str, Any]) -> Grid:
        """Of the group of layers with the smallest width; without a group size, of a whole row."""
        width = self.width_in(config)
        weights = next((each for each in _of_groups(config, "weights") if each.get("num_bits") == width), {})
        size = weights.get("group_size")
        return Grid(size if isinstance(size, int) else 0, weights.get("symmetric") is not False)

    def why_not_read(self, config: Mapping[str, Any]) -> str | None:
        """Why a checkpoint cannot be measured: a format or an order of columns that compressed-tensors 0.20
        does not unpack."""
        formats = [config.get("format"), *(group.get("format") for group in _groups(config))]
        unread = [str(name) for name in formats if name is not None and name not in _FORMATS]
        if unread:
            known = ", ".join(_FORMATS)
            return f"its format {unread[0]} is not read by compressed-tensors 0.20: known are {known}"
        if any(weights.get("actorder") in _BY_COLUMN for weights in _of_groups(config, "weights")):
            return (
                "its columns are in groups of an order of their own (actorder group, weight_g_idx), which"
                " compressed-tensors 0.20 no longer reads; actorder weight is read"
            )
        sparse = config.get("sparsity_config")
        if isinstance(sparse, Mapping) and sparse.get("format") not in (None, "dense"):
            return f"its weights are stored sparsely ({sparse['format']}), which is not read"
        return None

    def reading_notes(self, config: Mapping[str, Any], device: str) -> tuple[str, ...]:
        """What a reader of the numbers must know."""
        rounded = [a for a in _of_groups(config, "input_activations") if a.get("num_bits")]
        kinds = " and ".join(dict.fromkeys(_words(arguments) for arguments in rounded))
        said = (f"Activations were rounded to {kinds}, as the checkpoint says.",) if kinds else ()
        return (UNPACKED, *said, *((CACHE_IN_16_BITS,) if config.get("kv_cache_scheme") else ()))

    def serving(self, bits: int, source: str) -> Serving:
        """vLLM finds the format by itself."""
        return Serving(notes=("vLLM finds compressed-tensors' format in config.json, without a flag",))


def _groups(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    groups = config.get("config_groups")
    found = groups.values() if isinstance(groups, Mapping) else ()
    return [group for group in found if isinstance(group, Mapping)]


def _words(arguments: Mapping[str, Any]) -> str:
    kind = "floating point" if arguments.get("type") == "float" else "integers"
    return f"{arguments['num_bits']}-bit {kind}"


def _of_groups(config: Mapping[str, Any], part: str) -> list[Mapping[str, Any]]:
    """What each group of layers says of its weights or of its input activations."""
    return [said for group in _groups(config) if isinstance(said := group.get(part), Mapping)]


METHOD = CompressedTensors()
