"""Inspect a transformers model: the kernels that multiply its weights, and the weights that a decode
reads."""

from __future__ import annotations

import collections
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from quantlab.architecture.fields import experts_of
from quantlab.architecture.roofline import WeightReads
from quantlab.engines._transformers.placement import tensors
from quantlab.models.wrappers import parts_of


def kernel_of(model: Any) -> str:
    """The classes that the linear layers are, with the count of each, and what they call where that is chosen
    at run time."""
    from torch import nn

    layers = [
        m
        for m in model.modules()
        if isinstance(m, nn.Linear) or hasattr(m, "qweight") or hasattr(m, "weight_scale_inv")
    ]
    kinds = collections.Counter(type(layer).__name__ for layer in layers)
    named = ", ".join(f"{name} × {count}" for name, count in kinds.most_common()) or "unknown"
    behind = dict.fromkeys(filter(None, map(_behind, layers)))
    return f"{named} ({'; '.join(behind)})" if behind else named


def _behind(layer: Any) -> str | None:
    """The library's own kernel under a layer's class."""
    origin = type(layer).__module__
    if getattr(layer, "quantization_scheme", None):
        return f"compressed-tensors {_version('compressed-tensors')}, weights unpacked"
    if origin.startswith("gptqmodel"):
        return f"GPTQModel {_version('gptqmodel')} {origin.rpartition('.')[2]}"
    if origin.startswith("bitsandbytes"):
        return f"bitsandbytes {_version('bitsandbytes')} {_bitsandbytes_backend(layer.weight.device.type)}"
    return None


def _bitsandbytes_backend(device: str) -> str:
    """Which of its implementations bitsandbytes sends a device's products to, and the native library that it
    loaded."""
    from bitsandbytes import cextension

    loaded = getattr(getattr(cextension.lib, "_lib", None), "_name", None)
    return f"backend {device}, {Path(loaded).name if loaded else 'no native library'}"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def reads_of(model: Any) -> WeightReads:
    """Stored bytes of the weights that a decode reads, by the tensors that are loaded."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    # a quantized head may keep its weight under another name, and then it is not the embedding's
    skipped = (
        set() if head is None or getattr(head, "weight", None) is embedding.weight else {id(embedding.weight)}
    )
    towers = tuple(f"{name}." for name in parts_of(model).towers)  # a token of text passes none of them
    always, experts, seen = 0, 0, set[int]()
    for name, tensor in tensors(model):
        if name.startswith(towers):
            continue
        storage = tensor.untyped_storage()
        key = storage.data_ptr() or id(tensor)
        if id(tensor) in skipped or key in seen:
            continue
        seen.add(key)
        if ".experts." in name:
            experts += storage.nbytes()
        else:
            always += storage.nbytes()
    return WeightReads(
        always, experts, *(experts_of(model.config.get_text_config(decoder=True)) if experts else ())
    )
