"""Open packed checkpoints whose layers the model's class in transformers does not have.

transformers holds the experts of a layer in one tensor, and some families' projections in one matrix.
GPTQModel quantizes them one by one and stores them under names of their own, which transformers cannot put
together. GPTQModel itself opens such a checkpoint."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from quantlab.errors import CellFailure
from quantlab.formats.packed import parts_missing
from quantlab.formats.safetensors import header, weight_files
from quantlab.hardware.device import parse_places

_READ_BY_GPTQMODEL = ("gptq", "awq", "fp8")
_IN_LAYER = re.compile(r"(^|.*\.)(layers|layer|h|blocks)\.(?=\d+\.)")
NAMED = 3
"""Tensors that a message names."""


def packed_layers(weights: Path) -> list[str]:
    """Names of the layers that hold packed words."""
    names = (name for path in weight_files(weights) for name in header(path))
    return sorted(name.removesuffix(".qweight") for name in names if name.endswith(".qweight"))


@cache
def layers_apart(weights: Path, trust_remote_code: bool) -> tuple[str, ...]:
    """Names of packed layers that the model's class does not have; empty where transformers can load all.

    What stands before the number of a block is not compared: it differs between a wrapper and its text model.
    Answered once per process: the class is built for it.
    """
    from quantlab.models.loading import broken_checkpoint, build_on_meta, load_config

    packed = packed_layers(weights)
    if not packed:
        return ()
    config = load_config(weights, trust_remote_code, broken_checkpoint)
    model = build_on_meta(config, trust_remote_code, broken_checkpoint)
    known = {_in_block(name) for name, _ in model.named_modules()}
    return tuple(name for name in packed if _in_block(name) not in known)


def _in_block(name: str) -> str:
    return _IN_LAYER.sub("", name, count=1)


def opens(config: dict[str, Any]) -> bool:
    """Whether GPTQModel reads checkpoints of this kind."""
    return config.get("quant_method") in _READ_BY_GPTQMODEL


def load_with_gptqmodel(
    weights: Path, device: str, trust_remote_code: bool, dtype: str = "auto", backend: str = "auto"
) -> Any:
    """The model as GPTQModel opens it. Raises CellFailure where it does not, or where tensors are missing."""
    if parse_places(device).several:
        raise CellFailure(
            "unsupported", f"GPTQModel opens this checkpoint on one device, not over {device}: name one"
        )
    from gptqmodel import GPTQModel

    from quantlab.models.gptqmodel_trees import complete_trees
    from quantlab.models.loading import broken_checkpoint, load_config, only_trusted_code
    from quantlab.models.own_classes import own_classes
    from quantlab.outside import as_failure, is_own

    complete_trees()
    try:
        kind = load_config(weights, trust_remote_code, broken_checkpoint).model_type
        with only_trusted_code(trust_remote_code), own_classes(kind):
            model = GPTQModel.load(
                str(weights),
                device=device,
                backend=backend,
                trust_remote_code=trust_remote_code,
                dtype=dtype,
            ).model
    except Exception as error:  # the library raises whatever a file leads it to
        known, said = as_failure(error), " ".join(str(error).split())[:200]
        if known is None and is_own(error, "gptqmodel", "transformers"):
            raise
        raise known or CellFailure(
            "broken_checkpoint", f"GPTQModel cannot open it: {type(error).__name__}: {said}"
        ) from error
    _require_complete(model, weights)
    return model


def _require_complete(model: Any, weights: Path) -> None:
    """Raise CellFailure where a packed layer of the files is not one of the model's, or a weight of the
    model is in no file: the library fills it with what the memory held."""
    stored = {name for path in weight_files(weights) for name in header(path)}
    quantized = {name for name, layer in model.named_modules() if _is_packed(layer)}
    if dropped := [name for name in packed_layers(weights) if name not in quantized]:
        raise CellFailure(
            "broken_checkpoint",
            f"{len(dropped)} packed layers have no place in the model: {_listed(dropped)}",
        )
    tied = set(getattr(model, "all_tied_weights_keys", None) or {})
    lacking = [
        name
        for name, _ in model.named_parameters()
        if name not in stored and name not in tied and name.rpartition(".")[0] not in quantized
    ]
    lacking += parts_missing(weights)
    lacking += [f"{name}.qweight" for name in sorted(quantized) if not stored & _codes_of(name)]
    if lacking:
        raise CellFailure(
            "broken_checkpoint", f"{len(lacking)} tensors are missing from the files: {_listed(lacking)}"
        )


def _codes_of(layer: str) -> set[str]:
    """What the codes of a packed layer may be called; FP8 keeps them in `weight`."""
    return {f"{layer}.qweight", f"{layer}.weight"}


def _is_packed(layer: Any) -> bool:
    from gptqmodel.nn_modules.qlinear import BaseQuantLinear

    return isinstance(layer, BaseQuantLinear)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(sorted(names)[:NAMED]) + more
