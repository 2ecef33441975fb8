"""Tell which linear layers GPTQModel quantized, name those that it left, and those that it has to leave."""

from __future__ import annotations

import collections
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from quantlab.files import write_json
from quantlab.methods._contract import Job
from quantlab.methods._nearest import kind_of_parameter

OUTPUTS = 16
"""The outputs that torch's 4-bit kernel for CPUs multiplies by are a multiple of it; GPTQModel packs others
for it, and the checkpoint then stops where it is used."""


def odd_layers(job: Job) -> list[str]:
    """Linear layers whose outputs the kernels cannot take; fewer are gates, which GPTQModel leaves alone."""
    from torch import nn

    from quantlab.models.loading import build_on_meta, load_config

    model = build_on_meta(load_config(job.source, job.trust_remote_code), job.trust_remote_code)
    rows = {name: layer.out_features for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    return [name for name, outputs in rows.items() if outputs > OUTPUTS and outputs % OUTPUTS]


class Layers(NamedTuple):
    """Names of the linear layers of a quantized model, its output head left out."""

    packed: list[str]
    plain: list[str]


def layers_of(model: Any) -> Layers:
    """The layers of a model that GPTQModel has quantized."""
    from torch import nn

    head = model.get_output_embeddings()
    packed = {n for n, m in model.named_modules() if hasattr(m, "qweight") or hasattr(m, "weight_scale_inv")}
    plain = [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and layer is not head and name not in packed
    ]
    return Layers(sorted(packed), sorted(plain))


def stacked_experts(model: Any) -> list[str]:
    """Tensors that still hold all experts of a layer: GPTQModel quantizes those alone that it takes apart."""
    parameters = ((name, value) for name, value in model.named_parameters() if value.ndim == 3)
    return [name for name, value in parameters if kind_of_parameter(name, value) == "experts"]


def note_on_left(layers: Layers) -> tuple[str, ...]:
    """A sentence on the linear layers that were left in 16 bits, by name and count."""
    if not layers.plain:
        return ()
    names = collections.Counter(re.sub(r"\.\d+\.", ".*.", name).rpartition("*.")[2] for name in layers.plain)
    listed = ", ".join(f"{name} × {count}" for name, count in sorted(names.items()))
    total = len(layers.plain) + len(layers.packed)
    return (
        f"GPTQModel leaves {len(layers.plain)} of {total} linear layers of this architecture unquantized:"
        f" {listed}.",
    )


def name_unquantized(folder: Path, packed: list[str], plain: list[str]) -> None:
    """Say in the saved configuration in `folder` which layers are packed, where some of a block are not.

    GPTQModel leaves for example the small gates of Qwen3.5's linear attention alone and does not say so;
    transformers then makes packed layers of them, finds no tensors for these and computes with whatever the
    memory held. Transformers reads `modules_to_not_convert` for AWQ and, through optimum,
    `modules_in_block_to_quantize` for GPTQ."""
    named = {"modules_to_not_convert": sorted(plain), "modules_in_block_to_quantize": [sorted(packed)]}
    for path in (folder / "config.json", folder / "quantize_config.json"):
        if path.exists():
            config = json.loads(path.read_text(encoding="utf-8"))
            section = config["quantization_config"] if path.name == "config.json" else config
            key = {"awq": "modules_to_not_convert", "gptq": "modules_in_block_to_quantize"}.get(
                section.get("quant_method")
            )
            if key:
                section[key] = named[key]
                write_json(path, config)
