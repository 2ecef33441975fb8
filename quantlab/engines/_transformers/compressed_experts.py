"""Unpack the experts of a mixture with all that compressed-tensors stored of them.

transformers 5.23 gives the library's function the codes, the scales and the shape alone: it takes NVFP4's
experts for ones without a scale of the whole matrix, without a word, and finds none in INT8. Here the
function gets every part, after a look at their shapes, which transformers does not take either."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from quantlab.engines._transformers.compressed_zeros import wrong_zeros
from quantlab.errors import CellFailure
from quantlab.formats.safetensors import header, weight_files

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
def all_parts(weights: Path) -> Iterator[None]:
    """Let transformers unpack the experts of a checkpoint so, for the block. Raises CellFailure where their
    zero points are not those of its config.json."""
    from transformers.integrations import compressed_tensors as library

    from quantlab.models.loading import broken_checkpoint

    kind: Any = library.CompressedTensorsDequantize
    usual = kind.convert
    entries = {name: entry for path in weight_files(weights) for name, entry in header(path).items()}
    checked: dict[str, str] = {}

    def convert(self: Any, input_dict: dict[str, Any], *given: Any, **named: Any) -> Any:
        if "weight" in input_dict or "weight_scale" in input_dict:
            return usual(self, input_dict, *given, **named)  # one layer
        config = self.hf_quantizer.compressor.quantization_config
        scheme = self.scheme or library.get_experts_scheme(config)
        for pattern in sorted({key.rpartition(".")[0] for key in input_dict} - set(checked)):
            checked[pattern] = wrong_zeros(entries, pattern, scheme)
        if any(checked.values()):
            raise ValueError("zero points of experts are amiss")  # transformers logs it, and goes on
        name = named.get("full_layer_name") or given[2]
        return unpacked(self.hf_quantizer, scheme, input_dict, named["model"].get_parameter(name).dtype)

    kind.convert = convert
    try:
        yield
    except CellFailure as failure:
        if wrong := "; ".join(filter(None, checked.values())):
            raise broken_checkpoint(
                f"the weights of {weights} are not those of its config.json: {wrong}"
            ) from failure
        raise
    finally:
        kind.convert = usual
