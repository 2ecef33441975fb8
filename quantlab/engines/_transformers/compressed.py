"""Unpack a checkpoint of compressed-tensors in memory, and round activations as a kernel does.

The library rounds activations in the dtype of the model: in bfloat16 that is as coarse as the rounding to 8
bits itself (half a code), and a kernel has no such error. So models with rounded activations compute in
float32."""

from __future__ import annotations

from typing import Any

import torch


def unpack(model: Any) -> Any:
    """The model with its weights unpacked, in float32 where activations are rounded."""
    compressor = model.hf_quantizer.compressor
    compressor.decompress_model(model)
    groups = compressor.quantization_config.config_groups.values()
    if any(group.input_activations for group in groups):
        # transformers refuses to cast a quantized model: here none of its weights are packed any more
        torch.nn.Module.float(model)
    return model
