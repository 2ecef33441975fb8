"""Choose the layers that bitsandbytes quantizes, by the model's own modules; no weights are loaded.

transformers replaces what is exactly a torch Linear or GPT-2's Conv1D, and takes a router or a gate of one
output for one. Those stay, and so does a layer that bitsandbytes' 4-bit kernel for CPUs with AVX512-BF16
cannot pack (functional.py: outputs in blocks of 32, inputs in blocks of 64), so that a checkpoint is the same
and runs wherever it was made; at 8 bits the same layers stay. Experts in one three-dimensional tensor are no
modules: its replacement of Linears does not reach them, but for Llama 4's (_bitsandbytes_experts.py)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from quantlab.methods._bitsandbytes_experts import take_apart

OUTPUTS, INPUTS = 32, 64
"""Multiples that the kernel's packing of 4 bits needs."""
_ROUTER = re.compile(r"(^|\.)(router|gate|wg|shared_expert_gate)(\.layer|\.linear|\.proj)?$")


class Layers(NamedTuple):
    """What is quantized and what is left, by the modules' names."""

    quantized: tuple[str, ...]
    unpackable: tuple[str, ...]
    """Linear layers of a shape that the kernel cannot pack."""
    skipped: tuple[str, ...]
    """All that transformers is told to leave: head, routers, and the unpackable."""


def layers_of(source: Path, trust_remote_code: bool) -> Layers:
    """The layers of a model's folder. Raises QuantlabError where transformers cannot build it."""
    from quantlab.models.loading import build_on_meta, load_config

    return choose(build_on_meta(load_config(source, trust_remote_code), trust_remote_code))


def choose(model: Any) -> Layers:
    """The same of a model without weights, whose experts are taken apart where transformers reads them so."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D
    from transformers.quantizers.base import get_keys_to_not_convert
    from transformers.quantizers.quantizers_utils import should_convert_module

    take_apart(model)
    usual = get_keys_to_not_convert(model)
    usual += list(getattr(model, "_keep_in_fp32_modules", None) or ())
    quantized, unpackable, routers = [], [], []
    for name, module in model.named_modules():
        if type(module) not in (nn.Linear, Conv1D) or not should_convert_module(name, usual):
            continue
        if _ROUTER.search(name):
            routers.append(name)
        elif not packable(*_shape(module)):
            unpackable.append(name)
        else:
            quantized.append(name)
    skipped = tuple(sorted({*usual, *routers, *unpackable}))
    return Layers(tuple(quantized), tuple(unpackable), skipped)


def packable(outputs: int, inputs: int) -> bool:
    """Whether the kernel packs a matrix of this shape."""
    return outputs % OUTPUTS == 0 and inputs % INPUTS == 0


def _shape(module: Any) -> tuple[int, int]:
    """Outputs and inputs; Conv1D keeps its weight transposed."""
    first, second = module.weight.shape
    return (first, second) if hasattr(module, "out_features") else (second, first)


def note(layers: Layers) -> str:
    """Which layers of another shape stay in 16 bits, in one sentence."""
    kinds = sorted({name.rpartition(".")[2] for name in layers.unpackable})
    return (
        f"{len(layers.unpackable)} linear layers ({', '.join(kinds)}) stay in 16 bits: bitsandbytes packs"
        f" blocks of {OUTPUTS} outputs and {INPUTS} inputs, and their shapes are no multiple of these."
    )
