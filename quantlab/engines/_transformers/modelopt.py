"""Load ModelOpt's checkpoints into dense layers, with the activations rounded as the checkpoint says.

FP8: `weight` in e4m3 times the matrix's `weight_scale`; the input is rounded to e4m3 in units of
`input_scale`. NVFP4: `weight` holds two e2m1 codes per byte, the first in the low half; a code times
`weight_scale` (e4m3, one per 16 columns) times `weight_scale_2` (one per matrix). The input's blocks of 16
get a scale of their own, an e4m3 number in units of `input_scale`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from quantlab.errors import CellFailure
from quantlab.formats.safetensors import weight_files

if TYPE_CHECKING:
    import torch

E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""Magnitudes of the 3 lower bits of a code; the fourth is the sign."""
LARGEST_E2M1, LARGEST_E4M3 = 6.0, 448.0
GROUP = 16
_SCALES = ("weight_scale", "weight_scale_2", "input_scale")
_OF_CACHE = ("k_scale", "v_scale", "k_proj.output_scale", "v_proj.output_scale")
"""Scales of a quantized cache, which is not used."""


def load_modelopt(weights: Path, device: str, trust_remote_code: bool, dtype: str = "auto") -> Any:
    """The model with its weights unpacked. Raises CellFailure where they do not make the whole model."""
    import torch

    from quantlab.models.loading import broken_checkpoint, load_plain_config, load_state

    config = load_plain_config(weights, trust_remote_code, broken_checkpoint)
    state = _tensors(weights)
    scales = _take_scales(state)
    if lacking := _missing(state, scales):
        raise broken_checkpoint(f"{len(lacking)} tensors are missing: {', '.join(lacking[:3])}")
    # rounding activations in bfloat16 would add an error that no kernel has (compressed.py)
    rounded = any("input_scale" in parts for parts in scales.values())
    wanted = torch.float32 if rounded or dtype == "float32" else config.dtype or torch.bfloat16
    for layer, parts in scales.items():
        state[f"{layer}.weight"] = _unpacked(layer, state[f"{layer}.weight"], parts).to(wanted)
    model = load_state(
        config, state, trust_remote_code, broken_checkpoint, dtype=wanted, device_map={"": device}
    )
    _round_inputs(model, scales)
    return model


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors import safe_open

    state: dict[str, torch.Tensor] = {}
    for path in weight_files(folder):
        with safe_open(path, framework="pt") as file:
            state |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - safe_open has no iterator
    return {name: tensor for name, tensor in state.items() if not name.endswith(_OF_CACHE)}


def _take_scales(state: dict[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """Take the scales out of the tensors, by layer."""
    layers = [name.removesuffix(".weight_scale") for name in state if name.endswith(".weight_scale")]
    return {
        layer: {part: state.pop(f"{layer}.{part}") for part in _SCALES if f"{layer}.{part}" in state}
        for layer in layers
    }


def _missing(state: dict[str, torch.Tensor], scales: dict[str, dict[str, torch.Tensor]]) -> list[str]:
    """Codes of layers that have scales, and the input scale of a layer where others have one: it would take
    its input as it comes, and lose less than a kernel."""
    rounded = any("input_scale" in parts for parts in scales.values())
    lacking = [f"{layer}.weight" for layer in scales if f"{layer}.weight" not in state]
    lacking += [
        f"{layer}.input_scale" for layer, parts in scales.items() if rounded and "input_scale" not in parts
    ]
    return sorted(lacking)


def _unpacked(layer: str, weight: torch.Tensor, parts: dict[str, torch.Tensor]) -> torch.Tensor:
    """The weight in float32. Raises CellFailure for tensors of neither format."""
    import torch

    scale = parts["weight_scale"].float()
    if weight.dtype == torch.uint8 and "weight_scale_2" in parts:
        codes = torch.stack((weight & 15, weight >> 4), -1).flatten(-2)
        values = torch.tensor((*E2M1, *(-value for value in E2M1)))[codes.long()]
        return values * (scale * parts["weight_scale_2"].float()).repeat_interleave(GROUP, -1)
    if weight.dtype == torch.float8_e4m3fn and scale.numel() == 1:
        return weight.float() * scale
    raise CellFailure(
        "unsupported",
        f"{layer} is stored as {str(weight.dtype).removeprefix('torch.')} with {scale.numel()} scales: of"
        " ModelOpt only FP8 with one scale per matrix and NVFP4 are read",
    )


def _round_inputs(model: Any, scales: dict[str, dict[str, torch.Tensor]]) -> None:
    """Round what enters each linear layer that has an input scale."""
    from torch import nn

    modules = dict(model.named_modules())
    for layer, parts in scales.items():
        module, scale = modules.get(layer), parts.get("input_scale")
        if isinstance(module, nn.Linear) and scale is not None:
            round_input = round_to_e2m1 if "weight_scale_2" in parts else round_to_e4m3
            hook: Any = _Rounding(round_input, scale.float())
            module.register_forward_pre_hook(hook)


class _Rounding(NamedTuple):
    """A hook that rounds the first input of a layer."""

    rounding: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    scale: torch.Tensor

    def __call__(self, module: Any, inputs: Any) -> Any:
        return (self.rounding(inputs[0], self.scale), *inputs[1:])


def round_to_e4m3(values: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Round to e4m3 in units of the scale; what is larger becomes the largest."""
    import torch

    scale = scale.to(values.device)
    codes = (values.float() / scale).clamp(-LARGEST_E4M3, LARGEST_E4M3).to(torch.float8_e4m3fn)
    return (codes.float() * scale).to(values.dtype)


def round_to_e2m1(values: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Round blocks of 16 to e2m1, each with a scale that is an e4m3 number of units of `scale`."""
    import torch

    scale = scale.to(values.device)
    blocks = values.float().unflatten(-1, (-1, GROUP))
    largest = blocks.abs().amax(-1, keepdim=True) / LARGEST_E2M1
    of_block = (largest / scale).clamp(max=LARGEST_E4M3).to(torch.float8_e4m3fn).float() * scale
    units = torch.where(of_block > 0, blocks / of_block, 0.0).clamp(-LARGEST_E2M1, LARGEST_E2M1)
    rounded: torch.Tensor = (_nearest_e2m1(units) * of_block).flatten(-2).to(values.dtype)
    return rounded


def _nearest_e2m1(units: torch.Tensor) -> torch.Tensor:
    """The nearest value, of two equally near ones that with an even code."""
    import torch

    magnitudes: torch.Tensor = torch.tensor(E2M1, device=units.device)
    borders = (magnitudes[1:] + magnitudes[:-1]) / 2
    below, above = torch.bucketize(units.abs(), borders), torch.bucketize(units.abs(), borders, right=True)
    code = torch.where(below % 2 == 0, below, above)
    nearest: torch.Tensor = magnitudes[code] * units.sign()
    return nearest
