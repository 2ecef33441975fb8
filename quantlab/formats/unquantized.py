"""Count the weights that a checkpoint left in 16 or 32 bits, by kind, from its tensors' names and shapes.

A module with a packed tensor is quantized: its scales, zeros and biases do not count as weights left. Only
the files' headers are read."""

from __future__ import annotations

import collections
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from quantlab.formats.safetensors import FLOATS, header, weight_files
from quantlab.records import WeightKind

_TOWER = (
    r"vision\w*|visual\w*|audio\w*|image\w*|multi_modal\w*|multimodal\w*|mm_\w*|embed_vision|embed_audio"
    r"|sam_\w*|siglip\w*|patch_merg\w*|aligner|connector"
)
_EMBEDDING = (
    r"embed_tokens|embed_tokens_per_layer|embed_in|embeddings|tok_embeddings|word_embeddings|wte|wpe"
    r"|token_embd|per_layer_token_embd|position_embd"
)
_NAMES: tuple[tuple[WeightKind, re.Pattern[str]], ...] = (
    ("towers", re.compile(rf"(^|\.)({_TOWER})(\.|$)|^(v|a|mm)\.")),
    (
        "router",
        re.compile(r"(^|\.)(gate|router|shared_expert_gate|wg|ffn_gate_inp(_shexp)?)(\.|$)"),
    ),
    ("experts", re.compile(r"(^|\.)(experts|\w+_exps)(\.|$)|block_sparse_moe\.(input|output)_linear")),
    ("embedding", re.compile(rf"(^|\.)({_EMBEDDING})(\.|$)")),
    ("head", re.compile(r"(^|\.)(lm_head|embed_out|output_layer)(\.|$)|^output(\.|$)")),
)
"""The first that fits. GGUF's names are llama.cpp's."""
_CONVOLUTION = re.compile(r"conv1d|short_?conv\.conv|ssm_(conv1d|a)|A_log|conv\.conv")
"""Short convolutions and tables of states: no matrix that a token is multiplied by."""
_BESIDE_CODES = re.compile(
    r"scale|zero|absmax|scb|quant|bias|g_idx|global|shape|smooth|awq|\bs\b", re.IGNORECASE
)
"""In the last part of a plain tensor's name: it belongs to the codes of its module."""


class StoredWeight(NamedTuple):
    """A tensor as its kind is told: by name, type and dimensions above 1."""

    name: str
    type: str
    shape: tuple[int, ...]
    elements: int


def tensors_of(folder: Path) -> list[StoredWeight]:
    """Every tensor of a folder's safetensors. Raises QuantlabError where a file is damaged."""
    return [
        _stored(name, entry["dtype"], entry["shape"])
        for path in weight_files(folder)
        for name, entry in header(path).items()
    ]


def tensors_of_gguf(path: Path) -> list[StoredWeight]:
    """Every tensor of a GGUF file. Raises CellFailure where the file is damaged."""
    from quantlab.formats.gguf import stored_tensors

    return [_stored(tensor.name, tensor.type, tensor.shape) for tensor in stored_tensors(path)]


def _stored(name: str, kind: str, shape: Iterable[int]) -> StoredWeight:
    sizes = tuple(shape)
    elements = 1
    for size in sizes:
        elements *= size
    return StoredWeight(name, kind, tuple(size for size in sizes if size != 1), elements)


def weights_left(tensors: Iterable[StoredWeight]) -> Mapping[str, int]:
    """Elements of the tensors that no quantization has packed, by kind; kinds without any are not listed."""
    modules: dict[str, list[StoredWeight]] = collections.defaultdict(list)
    for tensor in tensors:
        modules[_module(tensor.name)].append(tensor)
    left: collections.Counter[str] = collections.Counter()
    for parts in modules.values():
        packed = any(part.type not in FLOATS for part in parts)
        for part in parts:
            if part.type in FLOATS and not (packed and _belongs_to_codes(part)):
                left[kind_of(part)] += part.elements
    return dict(left)


def _module(name: str) -> str:
    """The module that a tensor belongs to: `a.b` of `a.b.qweight` and of `a.b.weight.absmax`."""
    owner, weight, _ = name.partition(".weight.")
    return owner if weight else name.rpartition(".")[0]


def _belongs_to_codes(tensor: StoredWeight) -> bool:
    return len(tensor.shape) < 2 or _BESIDE_CODES.search(tensor.name.rpartition(".")[2]) is not None


def kind_of(tensor: StoredWeight) -> WeightKind:
    """The kind of a plain tensor. A matrix under no known name is a linear layer."""
    kind = next((kind for kind, names in _NAMES if names.search(tensor.name)), None)
    if kind in ("towers", "router"):
        return kind
    if len(tensor.shape) < 2 or tensor.name.endswith("bias"):
        return "norms"
    if kind is None:
        return "linears" if len(tensor.shape) == 2 and not _CONVOLUTION.search(tensor.name) else "other"
    return kind
