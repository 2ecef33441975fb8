"""Load a checkpoint with the layers that it stores, with the reason where it cannot be loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from quantlab.engines._transformers.apart import layers_apart, load_with_gptqmodel, opens
from quantlab.engines._transformers.kernels import choice_for, with_backend
from quantlab.engines._transformers.placement import check_disk, placement
from quantlab.errors import CellFailure
from quantlab.hardware.device import parse_places
from quantlab.models.auto_round_experts import complete_replacements
from quantlab.models.text_view import text_view

_BY_AUTO_ROUND = ("auto-round", "autoround", "intel/auto-round")


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


def needs_gptqmodel(weights: Path, config: dict[str, Any], trust_remote_code: bool) -> bool:
    """Whether transformers cannot load the checkpoint and GPTQModel can: FP8 with a scale per row, layers
    that the model's class does not have, or layers with widths of their own (`dynamic`)."""
    if opens(config) and config.get("dynamic"):
        return True
    if config.get("quant_method") == "fp8":
        return "weight_scale_method" in config
    return opens(config) and bool(layers_apart(weights, trust_remote_code))


def opening_note(weights: Path, config: dict[str, Any], trust_remote_code: bool) -> str | None:
    """What transformers alone makes of a checkpoint that GPTQModel has to open; None where it loads it."""
    if not needs_gptqmodel(weights, config, trust_remote_code):
        return None
    way = "open it with GPTQModel.load, as quantlab does"
    if not opens(config) or not (apart := layers_apart(weights, trust_remote_code)):
        return f"transformers alone does not read its layers: {way}."
    return (
        f"transformers alone leaves {len(apart)} of its packed layers out, such as {apart[0]}, and puts"
        f" random weights in their place with no more than a warning: {way}."
    )


def load_as_stored(wanted: Wanted, config: dict[str, Any]) -> Any:
    """The model with the layers that its checkpoint stores. Raises CellFailure where it cannot run here."""
    device, trust = wanted.device, wanted.trust_remote_code
    try:
        if needs_gptqmodel(wanted.weights, config, trust):
            with text_view(wanted.weights, trust) as text:
                choice = choice_for(text, parse_places(device).first)
                backend = choice.backend if choice else "auto"
                return load_with_gptqmodel(text, device, trust, wanted.dtype, backend)
        if config.get("quant_method") == "modelopt":
            return _load_modelopt(wanted)
        model = _load_with_transformers(wanted, config)
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


def _load_with_transformers(wanted: Wanted, config: dict[str, Any]) -> Any:
    from quantlab.models.loading import broken_checkpoint, load_model

    trust, places = wanted.trust_remote_code, placement(wanted.device, wanted.offload)
    if config.get("quant_method") == "compressed-tensors":
        from quantlab.engines._transformers.compressed import load_compressed

        return load_compressed(wanted.weights, parse_places(wanted.device).first, trust, wanted.dtype, places)
    if config.get("quant_method") in _BY_AUTO_ROUND:
        complete_replacements()
    packed = config.get("quant_method") not in (None, "bitsandbytes")
    how = {"dtype": wanted.dtype, **places}
    if choice := choice_for(wanted.weights, parse_places(wanted.device).first):
        how["quantization_config"] = with_backend(config, choice.backend)
    return load_model(wanted.weights, trust, broken_checkpoint, left_over=packed, **how)


def _load_modelopt(wanted: Wanted) -> Any:
    """The model of a checkpoint of ModelOpt, whose formats transformers does not read."""
    from quantlab.engines._transformers.modelopt import load_modelopt

    if parse_places(wanted.device).several:
        raise CellFailure(
            "unsupported", f"ModelOpt's checkpoints load on one device, not over {wanted.device}"
        )
    return load_modelopt(wanted.weights, wanted.device, wanted.trust_remote_code, wanted.dtype)
