"""Load a checkpoint into a transformers model, with the reason where it cannot be loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from quantlab.engines._transformers.apart import layers_apart, load_with_gptqmodel, opens
from quantlab.engines._transformers.config import quantization_config
from quantlab.engines._transformers.placement import check_disk, placement
from quantlab.errors import CellFailure
from quantlab.hardware.device import parse_places


class Wanted(NamedTuple):
    """How a checkpoint is to be loaded."""

    weights: Path
    device: str
    dense: bool = False
    """Whether packed layers are dequantized once into dense ones."""
    trust_remote_code: bool = False
    dtype: str = "auto"
    offload: str = ""
    """The folder for what does not fit into memory, where the disk is one of the places."""


def load(wanted: Wanted) -> Any:
    """The model that computes as wanted. Raises CellFailure where it cannot run here."""
    config = quantization_config(wanted.weights)
    if wanted.dense and config:
        from quantlab.engines._transformers.dense import load_dense

        model = load_dense(wanted.weights, config, wanted.device, wanted.trust_remote_code, wanted.dtype)
    else:
        model = load_as_stored(wanted._replace(dtype="float32") if wanted.dense else wanted, config)
    model.eval()
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


def needs_gptqmodel(weights: Path, config: dict[str, Any], trust_remote_code: bool) -> bool:
    """Whether transformers cannot load the checkpoint and GPTQModel can: FP8 with a scale per row, or layers
    that the model's class does not have."""
    if config.get("quant_method") == "fp8":
        return "weight_scale_method" in config
    return opens(config) and bool(layers_apart(weights, trust_remote_code))


def load_as_stored(wanted: Wanted, config: dict[str, Any]) -> Any:
    """The model with the layers that its checkpoint stores. Raises CellFailure where it cannot run here."""
    from quantlab.models.loading import broken_checkpoint, load_model

    device, trust = wanted.device, wanted.trust_remote_code
    try:
        if needs_gptqmodel(wanted.weights, config, trust):
            return load_with_gptqmodel(wanted.weights, device, trust, wanted.dtype)
        # what packed formats store beside their layers is their libraries' affair; a missing part is refused
        # all the same
        packed = config.get("quant_method") not in (None, "bitsandbytes")
        places = placement(device, wanted.offload)
        model = load_model(
            wanted.weights, trust, broken_checkpoint, left_over=packed, dtype=wanted.dtype, **places
        )
    except ImportError as error:
        raise CellFailure(
            "not_installed", f"{' '.join(str(error).split())[:200]} (install quantlab[all])"
        ) from error
    except ValueError as error:
        if not parse_places(device).several:
            raise
        raise CellFailure(
            "unsupported", f"it cannot be spread over {device}: {' '.join(str(error).split())[:300]}"
        ) from error
    if not check_disk(model, device):
        raise CellFailure(
            "does_not_fit",
            f"the model does not fit into {device}: name more places, such as --device {device},disk",
        )
    return model


def _multiply_in_float32(model: Any) -> None:
    """Let bitsandbytes' 4-bit layers multiply in float32: a checkpoint's own setting is a 16-bit dtype."""
    import torch

    for module in model.modules():
        if hasattr(module, "compute_dtype") and hasattr(module, "compute_type_is_set"):
            module.compute_dtype, module.compute_type_is_set = torch.float32, True
