"""Write a checkpoint in FP8 from a model's files, one file after another: no more than one is in memory."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantlab.files import write_json
from quantlab.formats.copying import name_shards
from quantlab.formats.json_file import read_object
from quantlab.formats.safetensors import INDEX, weight_files
from quantlab.methods._fp8_layers import Chosen, Fused
from quantlab.methods._fp8_rounding import FORMAT, round_rows, scheme
from quantlab.workspace.checkpoint import model_files

if TYPE_CHECKING:
    import torch

_NOT_COPIED = (".safetensors", INDEX, "config.json")


def write_checkpoint(source: Path, folder: Path, chosen: Chosen, progress: Any) -> frozenset[str]:
    """Write weights, configuration and tokenizer into an empty folder; the names of the layers in FP8."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    files, layers, parts = weight_files(source), set[str](), list[Path]()
    with progress.step("FP8: rounding the weights", len(files)) as step:
        for number, path in enumerate(files):
            tensors: dict[str, torch.Tensor] = {}
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - safe_open has no iterator
                    tensors |= dict(_made_of(name, file.get_tensor(name), chosen, layers))
            parts.append(folder / f"part-{number}")
            save_file(tensors, parts[-1], {"format": "pt"})
            step.advance()
    name_shards(folder, parts)
    for name in model_files(source):
        if not name.endswith(_NOT_COPIED):
            shutil.copyfile(source / name, folder / name)
    config = read_object(source / "config.json")
    write_json(folder / "config.json", config | {"quantization_config": _description(chosen)})
    return frozenset(layers)


def _made_of(
    name: str, tensor: torch.Tensor, chosen: Chosen, layers: set[str]
) -> Iterator[tuple[str, torch.Tensor]]:
    """What stands in the checkpoint for one stored tensor; the names of layers are added to `layers`."""
    if name in chosen.stored:
        yield from _rounded(name.removesuffix(".weight"), tensor, layers)
    elif name in chosen.fused:
        for layer, part in _apart(tensor, chosen.fused[name]):
            if chosen.fused[name].layout.bias:
                yield f"{layer}.bias", part
            else:
                yield from _rounded(layer, part, layers)
    else:
        yield name, tensor


def _rounded(layer: str, weight: torch.Tensor, layers: set[str]) -> Iterator[tuple[str, torch.Tensor]]:
    layers.add(layer)
    codes = round_rows(weight)
    yield f"{layer}.weight", codes.weight
    yield f"{layer}.weight_scale", codes.scale


def _apart(tensor: torch.Tensor, fused: Fused) -> Iterator[tuple[str, torch.Tensor]]:
    """Each expert's part of a tensor that holds all, with its layer's name."""
    as_in_model = tensor.transpose(1, 2) if fused.exchanged else tensor
    for part, experts in fused.layout.apart(as_in_model).items():
        for number, expert in enumerate(experts):
            # a copy: tensors that share their memory are not saved
            yield f"{fused.experts}.{number}.{part}", expert.contiguous().clone()


def _description(chosen: Chosen) -> dict[str, Any]:
    """`quantization_config` as compressed-tensors writes it."""
    from compressed_tensors import __version__
    from compressed_tensors.quantization import QuantizationConfig

    config = QuantizationConfig(
        config_groups={"group_0": scheme()},
        format=FORMAT,
        quantization_status="compressed",
        ignore=list(chosen.ignored),
    )
    said: dict[str, Any] = config.model_dump(mode="json")
    return {"version": __version__, **said}
