"""Dequantize published formats without their libraries, and round activations: what a loss is checked against."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from .checkpoints import E2M1, FIXED_ABSMAX

Rounding = Callable[[torch.Tensor], torch.Tensor]
SIGNED_E2M1 = torch.cat((E2M1, -E2M1))


def model(
    base: Path, checkpoint: Path, rounding: Rounding | None, kept_in: torch.dtype = torch.bfloat16
) -> Any:
    """The base with the checkpoint's weights dequantized by hand, and inputs of linear layers rounded."""
    from transformers import AutoModelForCausalLM

    dtype = torch.float32 if rounding else torch.bfloat16
    dense: Any = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    tensors = load_file(checkpoint / "model.safetensors")
    for name, module in dense.named_modules():
        if name.endswith("_proj"):
            parts = {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}
            module.weight.data.copy_(weight(parts).to(kept_in))
            if rounding:
                module.register_forward_pre_hook(lambda _, inputs: (rounding(inputs[0]),))
    return dense.eval()


def weight(parts: dict[str, torch.Tensor]) -> torch.Tensor:
    """One layer's weight, by the types of its tensors."""
    packed = parts.get("weight_packed", parts.get("weight"))
    assert packed is not None
    if packed.dtype == torch.int32:
        codes, scales = _nibbles(packed), parts["weight_scale"].float()
        wide = codes.shape[1] // scales.shape[1]
        if "weight_zero_point" in parts:
            codes = codes - _nibbles(parts["weight_zero_point"].T).T.repeat_interleave(wide, 1)
        return codes * scales.repeat_interleave(wide, 1)
    if packed.dtype == torch.uint8:
        values = SIGNED_E2M1[torch.stack((packed & 15, packed >> 4), -1).flatten(-2).long()]
        return values * _scales_of_e2m1(parts, values.shape[1])
    scale = parts.get("weight_scale", parts.get("weight_scale_inv"))
    assert scale is not None
    if scale.ndim == 2 and scale.shape[1] > 1:
        high, wide = packed.shape[0] // scale.shape[0], packed.shape[1] // scale.shape[1]
        scale = scale.repeat_interleave(high, 0).repeat_interleave(wide, 1)
    return packed.float() * scale.float()


def _nibbles(packed: torch.Tensor) -> torch.Tensor:
    """The signed 4-bit values that each row's words hold."""
    return ((packed[..., None] >> (4 * torch.arange(8, dtype=torch.int32))) & 15).flatten(-2) - 8


def _scales_of_e2m1(parts: dict[str, torch.Tensor], columns: int) -> torch.Tensor:
    scale = parts["weight_scale"]
    if scale.dtype == torch.uint8:
        scales = torch.exp2(scale.float() - 127)
    elif "weight_scale_2" in parts:
        scales = scale.float() * parts["weight_scale_2"]
    else:
        scales = scale.float() / parts["weight_global_scale"]
    return scales.repeat_interleave(columns // scales.shape[1], 1)


def int8_per_token(x: torch.Tensor) -> torch.Tensor:
    scale = x.abs().amax(-1, keepdim=True) / 127.5
    return (x / scale).round().clamp(-128, 127) * scale


def fp8_per_token(x: torch.Tensor) -> torch.Tensor:
    scale = x.abs().amax(-1, keepdim=True) / 448
    return _e4m3(x / scale) * scale


def fp8_per_block(x: torch.Tensor) -> torch.Tensor:
    return fp8_per_token(x.unflatten(-1, (-1, 128))).flatten(-2)


def fp8_fixed(x: torch.Tensor) -> torch.Tensor:
    scale = torch.tensor(FIXED_ABSMAX / 448).to(torch.bfloat16).float()  # as compressed-tensors stores it
    return _e4m3(x / scale) * scale


def nvfp4(x: torch.Tensor) -> torch.Tensor:
    whole = FIXED_ABSMAX / (448 * 6)
    blocks = x.unflatten(-1, (-1, 16))
    scale = _e4m3(blocks.abs().amax(-1, keepdim=True) / 6 / whole) * whole
    return (_e2m1(blocks / scale.clamp(min=1e-12)) * scale).flatten(-2)


def mxfp4(x: torch.Tensor) -> torch.Tensor:
    blocks = x.unflatten(-1, (-1, 32))
    largest = blocks.abs().amax(-1, keepdim=True).clamp(min=1e-30)
    power = torch.floor(torch.log2(largest))
    power += largest / torch.exp2(power) >= 1.75  # llm-compressor takes the nearest power that 6 still covers
    scale = torch.exp2(power - 2)
    return (_e2m1((blocks / scale).clamp(-6, 6)) * scale).flatten(-2)


def _e4m3(x: torch.Tensor) -> torch.Tensor:
    return x.clamp(-448, 448).to(torch.float8_e4m3fn).float()


def _e2m1(x: torch.Tensor) -> torch.Tensor:
    """The nearest value; of two the one whose code is even."""
    distance = (x.abs()[..., None] - E2M1).abs()
    even = torch.tensor([0.0, 1e-6] * 4)
    return E2M1[(distance + even).argmin(-1)] * x.sign()


def round_inputs(model: Any, rounding: Rounding) -> None:
    """Round what enters every quantized layer, experts too."""
    for name, module in model.named_modules():
        if name.endswith("_proj"):
            module.register_forward_pre_hook(lambda _, inputs: (rounding(inputs[0]),))
        elif isinstance(getattr(module, "gate_up_proj", None), torch.nn.Parameter):
            module.forward = lambda *given, experts=module: _experts(experts, rounding, *given)


def _experts(experts: Any, rounding: Rounding, tokens: Any, chosen: Any, shares: Any) -> Any:
    """A mixture's experts, one by one."""
    out = torch.zeros_like(tokens)
    for number, (gate_up, down) in enumerate(zip(experts.gate_up_proj, experts.down_proj, strict=True)):
        token, place = torch.where(chosen == number)
        gate, up = torch.nn.functional.linear(rounding(tokens[token]), gate_up).chunk(2, -1)
        made = torch.nn.functional.linear(rounding(experts.act_fn(gate) * up), down)
        out.index_add_(0, token, made * shares[token, place, None])
    return out
