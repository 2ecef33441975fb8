"""Copy the first layers of a model, a smaller model of the same architecture: what a library cannot do with
the whole it mostly cannot do with these either, in a fraction of the time.

Tensors are copied byte for byte, under the names that the release gives them; the configuration says fewer
layers and is otherwise the release's own."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from quantlab.architecture.fields import MTP_COUNTS, keys_of
from quantlab.errors import QuantlabError
from quantlab.files import write_json
from quantlab.formats.copying import copy_tensors, name_shards
from quantlab.formats.json_file import read_object
from quantlab.formats.safetensors import header, weight_files
from quantlab.models.disk import require_disk
from quantlab.models.loading import build_on_meta, load_config
from quantlab.models.text_part import copy_tokenizer

FEWEST = 2
_LISTED = "layers_block_type"
"""Of Nemotron-H, which gives its layers as a list alone."""
_LAYER = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks|block)\.(\d+)\.")


def layers_needed(weights: Path, trust_remote_code: bool) -> int:
    """How many first layers have every kind of layer of the model: two at the least. Raises QuantlabError
    where the model cannot be built or has no numbered layers."""
    config = load_config(weights, trust_remote_code)
    text = config.get_text_config(decoder=True)
    kinds: dict[int, list[str]] = defaultdict(list)
    for name, parameter in build_on_meta(config, trust_remote_code).named_parameters():
        if layer := _LAYER.search(name):
            kinds[int(layer[1])].append(f"{name[layer.end() :]} {tuple(parameter.shape)}")
    if not kinds:
        raise QuantlabError(f"the layers of {weights} cannot be told by the names of its parameters")
    count = max(kinds) + 1
    for key, values in text.to_dict().items():
        if isinstance(values, list | tuple) and len(values) == count:
            for layer_number, value in enumerate(values):
                kinds[layer_number].append(f"{key} {json.dumps(value, default=str)}")
    first: dict[str, int] = {}
    for number in sorted(kinds):
        first.setdefault(repr(kinds[number]), number)
    return max(FEWEST, 1 + max(first.values()))


def layers_of(weights: Path) -> int:
    """How many layers config.json says. Raises QuantlabError where it says none."""
    config = read_object(weights / "config.json")
    for key in keys_of("num_hidden_layers"):
        if isinstance(config.get(key), int):
            return int(config[key])
    if isinstance(listed := config.get(_LISTED), list):
        return len(listed)
    raise QuantlabError(f"{weights}/config.json says no number of layers")


def first_layers_bytes(weights: Path, layers: int) -> int:
    """Bytes of the tensors that a copy of so many layers has."""
    return sum(
        entry["data_offsets"][1] - entry["data_offsets"][0]
        for path in weight_files(weights)
        for name, entry in header(path).items()
        if _is_kept(name, layers)
    )


def write_first_layers(weights: Path, folder: Path, layers: int) -> None:
    """Write a model of the first `layers` layers into a new folder, with the tokenizer and any code of the
    model's own. Raises QuantlabError where there is no room on the disk, or config.json says no layers."""
    config = read_object(weights / "config.json")
    changed = dict(_shortened(config, layers_of(weights), layers))
    require_disk(folder, first_layers_bytes(weights, layers))
    folder.mkdir(parents=True)
    parts = []
    for number, path in enumerate(weight_files(weights)):
        wanted = {name: name for name in header(path) if _is_kept(name, layers)}
        if wanted:
            parts.append(folder / f"part-{number}")
            copy_tensors(path, wanted, parts[-1])
    name_shards(folder, parts)
    copy_tokenizer(weights, folder)
    for code in weights.glob("*.py"):
        (folder / code.name).write_bytes(code.read_bytes())
    write_json(folder / "config.json", changed)


def _is_kept(name: str, layers: int) -> bool:
    layer = _LAYER.search(name)
    return layer is None or int(layer[1]) < layers


def _shortened(config: Mapping[str, Any], count: int, layers: int) -> Iterator[tuple[str, Any]]:
    """The fields with fewer layers: lists with an entry for each layer are cut, prediction layers left
    out."""
    ahead = max((int(config.get(name) or 0) for name in MTP_COUNTS), default=0)
    for name, value in config.items():
        listed = isinstance(value, list) or (isinstance(value, str) and name.endswith("pattern"))
        if name in keys_of("num_hidden_layers"):
            yield name, layers
        elif name in MTP_COUNTS:
            yield name, 0
        elif listed and len(value) in (count, count + ahead):
            yield name, value[:layers]
        else:
            yield name, value
