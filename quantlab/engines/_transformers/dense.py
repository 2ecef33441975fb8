"""The form of a checkpoint in which a CPU measures quality quickly: packed layers dequantized once from disk,
and float32 where the processor has no bfloat16 instructions.

The CPU kernels of GPTQ at 8, 3 and 2 bits and of auto-round are hundreds of times slower than a dense layer.
Quality may be measured on the dense form where it gives the real kernel's logits (stages/_verify.py checks
every checkpoint); speed and memory never.

GPTQ's format is auto-gptq's: codes of `bits` in int32 words along the input dimension, a scale and a zero
point per group, `g_idx` the group of each input column; in its first version the stored zero point is one
less. AWQ's GEMM format packs along the output dimension."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantlab.engines._transformers.apart import layers_apart, load_with_gptqmodel, opens, packed_layers
from quantlab.engines._transformers.as_stored import Wanted, load_as_stored
from quantlab.errors import CellFailure
from quantlab.formats.packed import without_effect
from quantlab.formats.safetensors import weight_files
from quantlab.hardware.device import quick_bfloat16
from quantlab.models.text_view import text_view

if TYPE_CHECKING:
    import torch


def form_of(weights: Path) -> str | None:
    """In words, the quicker form in which quality can be measured on a CPU; None where there is none."""
    from quantlab.formats.quantization import quantization_config

    config = quantization_config(weights)
    dtype = "" if quick_bfloat16() else "in float32, since this CPU has no bfloat16 instructions"
    if not config or config.get("load_in_8bit"):
        return dtype or None
    if config.get("load_in_4bit"):
        return f"on layers dequantized once {dtype}".strip()
    if _packing(config):
        return f"on layers dequantized once {dtype}".strip()
    return None


def _packing(config: dict[str, Any]) -> str | None:
    """How the layers are packed, where this file can read it."""
    method, bits = config.get("quant_method"), config.get("bits")
    if method == "gptq" and bits in (2, 3, 4, 8):
        return "gptq"
    if (
        method in ("auto-round", "autoround")
        and "gptq" in str(config.get("packing_format"))
        and bits in (2, 3, 4, 8)
    ):
        return "gptq"
    return (
        "awq"
        if method == "awq" and bits == 4 and str(config.get("version", "gemm")).lower() == "gemm"
        else None
    )


def load_dense(
    weights: Path, config: dict[str, Any], device: str, trust_remote_code: bool, wanted: str = "auto"
) -> Any:
    """A transformers model with dense layers, in float32 where that is wanted. Raises CellFailure for a
    format that this file does not read."""
    import torch

    from quantlab.models.loading import broken_checkpoint, load_model

    if not form_of(weights):
        raise CellFailure(
            "unsupported", f"{config.get('quant_method')} checkpoints are not read as dense layers"
        )
    dtype = None if quick_bfloat16() and wanted != "float32" else torch.float32
    if config.get("load_in_4bit") or config.get("load_in_8bit"):
        places = {"": device}
        model = load_model(
            weights, trust_remote_code, broken_checkpoint, dtype=dtype or torch.bfloat16, device_map=places
        )
        return model.dequantize().to(dtype or torch.bfloat16) if config.get("load_in_4bit") else model
    if layers_apart(weights, trust_remote_code):
        with text_view(weights, trust_remote_code) as text:
            return _dense_apart(text, config, device, trust_remote_code, dtype)
    return _dense_of_class(weights, config, trust_remote_code, dtype).to(device)


def _dense_apart(
    weights: Path, config: dict[str, Any], device: str, trust_remote_code: bool, dtype: Any
) -> Any:
    """The model as its library opens it, each packed layer replaced by a dense one."""
    from torch import nn

    # where GPTQModel has replaced classes in this process already, what transformers can load cannot be told
    if opens(config):
        model = load_with_gptqmodel(weights, device, trust_remote_code)
    else:
        model = load_as_stored(Wanted(weights, device, trust_remote_code=trust_remote_code), config)
    dtype = dtype or model.dtype
    state = _tensors(weights)
    for name in packed_layers(weights):
        weight = _weight(name, state, config).to(dtype)
        bias = state.get(f"{name}.bias")
        rows, columns = weight.shape
        layer = nn.Linear(columns, rows, bias=bias is not None, dtype=dtype, device=device)
        layer.weight.data = weight.to(device)
        if bias is not None:
            layer.bias.data = bias.to(dtype).to(device)
        model.set_submodule(place_in(model, name), layer)
    return model.to(dtype)


def place_in(model: Any, layer: str) -> str:
    """The module's name of a layer that the files have under the release's, as Mixtral's."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming, apply_renamings

    if layer in {name for name, _ in model.named_modules()}:
        return layer
    renamings = [each for each in get_model_conversion_mapping(model) if isinstance(each, WeightRenaming)]
    renamed: str = apply_renamings(f"{layer}.weight", renamings)
    return renamed.removesuffix(".weight")


def _dense_of_class(weights: Path, config: dict[str, Any], trust_remote_code: bool, dtype: Any) -> Any:
    """The model's own class in transformers with the dequantized weights."""
    from quantlab.models.loading import broken_checkpoint, build_on_meta, load_plain_config, load_state

    plain = load_plain_config(weights, trust_remote_code, broken_checkpoint)
    dtype = dtype or plain.dtype
    state = _tensors(weights)
    layers = packed_layers(weights)
    places = build_on_meta(plain, trust_remote_code, broken_checkpoint).state_dict()
    for name in without_effect(weights, state.keys() - places.keys()):
        del state[name]
    for layer in layers:
        state[f"{layer}.weight"] = _weight(layer, state, config).to(dtype)
    return load_state(plain, state, trust_remote_code, broken_checkpoint, dtype=dtype)


def _tensors(weights: Path) -> dict[str, torch.Tensor]:
    from safetensors import safe_open

    state: dict[str, torch.Tensor] = {}
    for path in weight_files(weights):
        with safe_open(path, framework="pt") as file:
            state |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - safe_open has no iterator
    return state


def _weight(layer: str, state: dict[str, torch.Tensor], config: dict[str, Any]) -> torch.Tensor:
    """The weight (out, in) of a packed layer, whose parts are taken out of the state."""
    parts = {
        part: state.pop(f"{layer}.{part}")
        for part in ("qweight", "qzeros", "scales", "g_idx")
        if f"{layer}.{part}" in state
    }
    for part in ("qzeros", "scales"):
        if part not in parts:
            raise CellFailure("broken_checkpoint", f"1 tensor is missing: {layer}.{part}")
    if _packing(config) == "awq":
        return dequantize_awq(parts)
    bits = _bits(parts, int(config["bits"]))
    return dequantize(parts, bits, 0 if config.get("checkpoint_format") == "gptq_v2" else 1)


def _bits(parts: dict[str, torch.Tensor], usual: int) -> int:
    """The width of one layer: `dynamic` gives layers widths of their own, which their shapes show."""
    columns = parts.get("g_idx")
    return usual if columns is None else 32 * parts["qweight"].shape[0] // columns.shape[0]


def dequantize(parts: dict[str, torch.Tensor], bits: int, zero_offset: int) -> torch.Tensor:
    """The weight (out, in) of one layer: scale of the column's group × (code − zero point)."""
    import torch

    codes = _unpack(parts["qweight"].T.contiguous(), bits).T
    zeros = _unpack(parts["qzeros"], bits)[:, : codes.shape[1]] + zero_offset
    zeros = zeros & (2**bits - 1) if zero_offset else zeros
    rows = codes.shape[0]
    group = parts.get("g_idx")
    index = group.long() if group is not None else torch.arange(rows) // (rows // parts["scales"].shape[0])
    return ((codes - zeros[index]) * parts["scales"].float()[index]).T.contiguous()


def dequantize_awq(parts: dict[str, torch.Tensor]) -> torch.Tensor:
    """The weight (out, in) of one 4-bit layer in AWQ's GEMM order: eight outputs per word, outputs
    0, 2, 4, 6, 1, 3, 5, 7 from the low bits up."""
    codes, zeros = (_nibbles(parts[name]) for name in ("qweight", "qzeros"))
    rows = codes.shape[0] // zeros.shape[0]
    scales = parts["scales"].float().repeat_interleave(rows, 0)
    return ((codes - zeros.repeat_interleave(rows, 0)) * scales).T.contiguous()


def _nibbles(words: torch.Tensor) -> torch.Tensor:
    import torch

    shifts = 4 * torch.tensor([0, 4, 1, 5, 2, 6, 3, 7], dtype=torch.int32)
    return ((words[..., None] >> shifts) & 15).reshape(words.shape[0], -1)


def _unpack(words: torch.Tensor, bits: int) -> torch.Tensor:
    """int32 words (rows, words) to codes (rows, words × 32 / bits), least significant bits first, across word
    borders."""
    import torch

    shifts = torch.arange(32, dtype=torch.int32)
    stream = ((words[..., None] >> shifts) & 1).reshape(words.shape[0], -1, bits)
    weights = 2 ** torch.arange(bits, dtype=torch.int32)
    return (stream * weights).sum(-1).to(torch.int32)
