"""Choose what goes to FP8, and tell what becomes of each stored tensor.

The roles are those by which the planner counts: linear layers and routed experts go; embeddings, head,
routers, norms and towers stay. So does a layer whose sides are no multiples of 16, which the kernels need
(torch.nn.functional.scaled_mm), and what KEPT names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from quantlab.architecture.meta_pieces import named_pieces, pieces
from quantlab.models.experts import Layout, holds_experts, layout_of
from quantlab.models.stored_names import Place, places_of

MULTIPLE = 16
KEPT = re.compile(r"linear_attn\.in_proj_(a|b|ba)$|indexer\.weights_proj$|\.compressor\.")
"""Small gates of linear attention, which vLLM joins, and what DeepSeek's releases keep in 16 bits."""
_MODULE = "Linear"
"""What the checkpoint's description targets: torch's class, and every one that is made of it."""


class Fused(NamedTuple):
    """A stored tensor with the matrices, or the biases, of several experts."""

    experts: str
    """What stands before the number of an expert in the checkpoint's names."""
    layout: Layout
    exchanged: bool
    """Whether the file has rows and columns the other way round than the model."""


class Chosen(NamedTuple):
    """What goes to FP8."""

    stored: dict[str, str]
    """Names of tensors that hold one layer's weight, and the parameter that each becomes."""
    fused: dict[str, Fused]
    """Names of tensors that hold several experts; each expert gets layers of its own."""
    parameters: dict[str, bool]
    """Parameters of the model that are quantized, and whether their rows and columns are exchanged."""
    ignored: tuple[str, ...]
    """Linear modules that stay, by the model's names and the files'."""
    left: tuple[str, ...]
    """Those of them that stay for their shape."""

    @property
    def of_experts(self) -> tuple[str, ...]:
        """The parameters that hold several experts."""
        return tuple(name for name in self.parameters if not name.endswith(".weight"))


def choose(source: Path, trust_remote_code: bool) -> Chosen:
    """What goes to FP8 of the model in a folder. Raises QuantlabError where transformers cannot build it."""
    from quantlab.formats.safetensors import header, weight_files
    from quantlab.models.loading import build_on_meta, load_config

    model = build_on_meta(load_config(source, trust_remote_code), trust_remote_code)
    shapes = {name: e["shape"] for path in weight_files(source) for name, e in header(path).items()}
    places = places_of(model, shapes)
    wanted, left = _wanted(model)
    stored: dict[str, str] = {}
    fused: dict[str, Fused] = {}
    for name, place in places.items():
        owner, _, key = place.parameter.rpartition(".")
        module = model.get_submodule(owner)
        if place.parameter.removesuffix("_bias") not in wanted:
            continue
        if holds_experts(module) and (len(shapes[name]) == 3 or key.endswith("_bias")):
            shape = list(model.get_parameter(place.parameter).shape)
            fused[name] = Fused(_before_number(name, owner), layout_of(module, key), shapes[name] != shape)
        elif name.endswith(".weight") and (place.renamed_only or holds_experts(module)):
            stored[name] = place.parameter
    made = {*stored.values(), *(places[name].parameter for name in fused)}
    parameters = {name: exchanged for name, exchanged in wanted.items() if name in made}
    return Chosen(stored, fused, parameters, _ignored(model, parameters, places), left)


def _before_number(name: str, owner: str) -> str:
    """The experts' name in the files: the model's, with the prefix that the file's names have."""
    _, _, tail = owner.partition(".layers.")
    before, found, _ = name.partition(".layers.")
    return f"{before}.layers.{tail}" if found and tail else owner


def _wanted(model: Any) -> tuple[dict[str, bool], tuple[str, ...]]:
    """Parameters by role and shape, whether rows and columns are exchanged, and modules that stay for their
    shape."""
    from torch import nn

    chosen, left = {}, []
    kept = list(getattr(model, "_keep_in_fp32_modules", None) or ())
    for name, piece in named_pieces(model):
        owner, _, key = name.rpartition(".")
        if piece.role not in ("linear", "expert") or not piece.matrices or set(kept) & set(owner.split(".")):
            continue
        module = model.get_submodule(owner)
        if KEPT.search(owner) or not (type(module) is nn.Linear or holds_experts(module)):
            continue
        if any(outputs % MULTIPLE or inputs % MULTIPLE for _, outputs, inputs, _ in piece.matrices):
            left.append(owner)
        else:
            chosen[name] = piece.fused and layout_of(module, key).exchanged
    return chosen, tuple(left)


def _ignored(model: Any, chosen: dict[str, bool], places: dict[str, Place]) -> tuple[str, ...]:
    """Modules that the description's target would take and that stay; routers, which are no Linear in
    transformers, are one in vLLM."""
    from compressed_tensors.utils.match import match_named_modules

    stay = {name for name, _ in match_named_modules(model, [_MODULE]) if f"{name}.weight" not in chosen}
    stay |= {piece.module for piece in pieces(model) if piece.role == "router" and piece.matrices}
    in_files = {
        name.removesuffix(".weight")
        for name, place in places.items()
        if place.parameter.removesuffix(".weight") in stay and name.endswith(".weight")
    }
    return tuple(sorted(stay | in_files))
