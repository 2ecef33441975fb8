"""Unpack the experts of a mixture with all that compressed-tensors stored of them.

transformers 5.23 gives the library's function the codes, the scales and the shape alone: it takes NVFP4's
experts for ones without a scale of the whole matrix, without a word, and finds none in INT8. Here the
function gets every part."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_CODES = ("weight_packed", "weight")


def unpacked(quantizer: Any, scheme: Any, parts: dict[str, Any], dtype: Any) -> dict[str, Any]:
    """Dense matrices (experts, outputs, inputs) by the pattern of their codes; `parts` are the tensors of all
    experts by pattern, such as `mlp.experts.*.up_proj.weight_scale`."""
    import torch
    from compressed_tensors.compressors import BaseCompressor

    config = quantizer.compressor.quantization_config
    compressor: Any = BaseCompressor.get_value_from_registry(scheme.format or config.format)
    owners: dict[str, dict[str, Any]] = {}
    for pattern, values in parts.items():
        owner, _, part = pattern.rpartition(".")
        owners.setdefault(owner, {})[part] = values if isinstance(values, list) else [values]
    out: dict[str, Any] = {}
    for owner, stored in owners.items():
        codes = next(part for part in _CODES if part in stored)
        if "weight_scale" not in stored:
            out[f"{owner}.{codes}"] = stored[codes]  # an expert that was not quantized
            continue
        made = [
            compressor.decompress({part: values[n] for part, values in stored.items()}, scheme)["weight"].to(
                dtype
            )
            for n in range(len(stored[codes]))
        ]
        out[f"{owner}.{codes}"] = torch.stack(made)
    return out


@contextmanager
def all_parts() -> Iterator[None]:
    """Let transformers unpack experts so, for the block."""
    from transformers.integrations import compressed_tensors as library

    kind: Any = library.CompressedTensorsDequantize
    usual = kind.convert

    def convert(self: Any, input_dict: dict[str, Any], *given: Any, **named: Any) -> Any:
        if "weight" in input_dict or "weight_scale" in input_dict:
            return usual(self, input_dict, *given, **named)  # one layer
        config = self.hf_quantizer.compressor.quantization_config
        scheme = self.scheme or library.get_experts_scheme(config)
        name = named.get("full_layer_name") or given[2]
        return unpacked(self.hf_quantizer, scheme, input_dict, named["model"].get_parameter(name).dtype)

    kind.convert = convert
    try:
        yield
    finally:
        kind.convert = usual
