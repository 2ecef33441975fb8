"""Take apart experts that a release stores in one tensor, and put them together again.

Qwen3-VL's mixture stores what Qwen3's text mixture has in a tensor for each expert, as (experts, inputs,
outputs). Libraries that know the text model look for the latter."""

from __future__ import annotations

import collections
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from quantlab.formats.safetensors import header
from quantlab.models.experts import Layout

if TYPE_CHECKING:
    import torch

_STACKED = re.compile(r"^(?P<experts>.*\.experts)\.(?P<what>gate_up_proj|down_proj)$")
_APART = re.compile(
    r"^(?P<experts>.*\.experts)\.(?P<number>\d+)\.(?P<matrix>gate_proj|up_proj|down_proj)\.weight$"
)
_MATRICES = {"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)}
_TEXT_TYPES = ("qwen3_vl_moe_text",)


class Sizes(NamedTuple):
    """Of an expert: what it reads and writes, and what lies between."""

    hidden: int
    inner: int


def sizes_of(text: Any) -> Sizes | None:
    """By the configuration of a release's language part; None where its files have what the text model's
    have."""
    return Sizes(text.hidden_size, text.moe_intermediate_size) if text.model_type in _TEXT_TYPES else None


def is_stacked(name: str) -> bool:
    """Whether a tensor holds a matrix of all experts of a layer."""
    return _STACKED.match(name) is not None


def is_apart(name: str) -> bool:
    """Whether a tensor is the unquantized matrix of one expert."""
    return _APART.match(name) is not None


def apart(name: str, stacked: torch.Tensor, sizes: Sizes) -> Iterator[tuple[str, torch.Tensor]]:
    """The matrices (outputs, inputs) of each expert, under the names that the text model's files have."""
    found = _STACKED.match(name)
    assert found is not None, name
    for matrix, experts in _layout(found["what"], stacked.shape, sizes).apart(stacked).items():
        for number, part in enumerate(experts):
            yield f"{found['experts']}.{number}.{matrix}.weight", part.contiguous()


def _layout(what: str, shape: Iterable[int], sizes: Sizes) -> Layout:
    """As (experts, outputs, inputs) where the shape is so, for which transformers takes it where both fit."""
    upright = (2 * sizes.inner, sizes.hidden) if what == "gate_up_proj" else (sizes.hidden, sizes.inner)
    return Layout(_MATRICES[what], tuple(shape)[1:] != upright, in_turn=False, bias=False)


def write_apart(source: Path, names: Mapping[str, str], sizes: Sizes, target: Path) -> None:
    """Write the stacked tensors of a file that `names` maps to the text model's names, expert by expert."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(source, framework="pt") as file:
        tensors = {
            part: value
            for name, new in names.items()
            for part, value in apart(new, file.get_tensor(name), sizes)
        }
    save_file(tensors, target, {"format": "pt"})


def write_together(
    made: Iterable[Path], names: Mapping[str, str], origin: Iterable[Path], target: Path
) -> list[Path]:
    """Write the unquantized experts of files in one tensor for each layer, as the release's files at `origin`
    have them, a file for each layer beside `target`; returns these.

    `names` maps the tensors to the release's names, without the stacking."""
    from safetensors.torch import save_file

    headers = [header(path) for path in origin]
    shapes = {name: entry["shape"] for each in headers for name, entry in each.items() if is_stacked(name)}
    layers: dict[str, dict[tuple[int, str], tuple[Path, str]]] = collections.defaultdict(dict)
    for path in made:
        for name in names.keys() & set(header(path)):
            found = _APART.match(names[name])
            assert found is not None, name
            layers[found["experts"]][int(found["number"]), found["matrix"]] = path, name
    parts = []
    for number, (experts, places) in enumerate(layers.items()):
        tensors = {
            f"{experts}.{what}": _together(places, what, shapes[f"{experts}.{what}"]) for what in _MATRICES
        }
        parts.append(target.with_name(f"{target.name}-{number}"))
        save_file(tensors, parts[-1], {"format": "pt"})
    return parts


def _together(places: Mapping[tuple[int, str], tuple[Path, str]], what: str, shape: list[int]) -> Any:
    import torch

    parts = [
        torch.stack([_read(*places[number, matrix]) for number in range(shape[0])])
        for matrix in _MATRICES[what]
    ]
    outputs, inputs = sum(part.shape[1] for part in parts), parts[0].shape[2]
    layout = Layout(_MATRICES[what], shape[1:] != [outputs, inputs], in_turn=False, bias=False)
    return layout.together(parts)


def _read(path: Path, name: str) -> Any:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return file.get_tensor(name)
