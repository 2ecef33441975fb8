"""Load a checkpoint into a transformers model, as it is stored or in its dense form."""

from __future__ import annotations

from typing import Any

from quantlab.engines._transformers.as_stored import Wanted, load_as_stored
from quantlab.engines._transformers.dense import load_dense
from quantlab.engines._transformers.int8 import take_any_shape
from quantlab.formats.quantization import quantization_config
from quantlab.hardware.device import quick_bfloat16


def load(wanted: Wanted) -> Any:
    """The model that computes as wanted. Raises CellFailure where it cannot run here."""
    config = quantization_config(wanted.weights)
    if wanted.dense and config:
        model = load_dense(wanted.weights, config, wanted.device, wanted.trust_remote_code, wanted.dtype)
    else:
        model = load_as_stored(wanted._replace(dtype="float32") if wanted.dense else wanted, config)
    model.eval()
    if config.get("quant_method") == "bitsandbytes":
        if wanted.dtype == "float32" or (wanted.dense and not quick_bfloat16()):
            plain_in_float32(model)
        take_any_shape(model)
    if wanted.dtype == "float32" and config.get("load_in_4bit"):
        _multiply_in_float32(model)
    return model


def computes_in_float32(config: dict[str, Any], device: str) -> bool:
    """Whether a checkpoint's kernels take float32: plain layers do and bitsandbytes', but for its 4-bit ones
    on a CPU.

    The kernels of GPTQ, AWQ and FP8 take 16 bits alone.
    """
    if config.get("quant_method") == "bitsandbytes":
        return not config.get("load_in_4bit") or device.startswith("cuda")
    return not config


def plain_in_float32(model: Any) -> None:
    """Let the layers that bitsandbytes left compute in float32: transformers loads them in the dtype that
    the checkpoint stores, whatever is asked for. Packed weights are whole numbers and stay."""
    import torch

    torch.nn.Module.float(model)  # transformers refuses to cast a quantized model


def _multiply_in_float32(model: Any) -> None:
    """Let bitsandbytes' 4-bit layers multiply in float32: a checkpoint's own setting is a 16-bit dtype."""
    import torch

    for module in model.modules():
        if hasattr(module, "compute_dtype") and hasattr(module, "compute_type_is_set"):
            module.compute_dtype, module.compute_type_is_set = torch.float32, True
