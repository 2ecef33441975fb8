"""Tiny checkpoints in the formats that people publish, made of a tiny model by the formats' own libraries.

Where the library quantizes activations with a fixed scale, the scale is one that the model's activations fit
into."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

E2M1 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
FIXED_ABSMAX = 16.0
"""Largest activation that the fixed scales are made for."""


def compressed(base: Path, folder: Path, preset: str) -> Path:
    """The model at `base`, quantized and stored by compressed-tensors itself."""
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import (
        QuantizationConfig,
        apply_quantization_config,
        preset_name_to_scheme,
    )
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    scheme = preset_name_to_scheme(preset, targets=["Linear"])
    config = QuantizationConfig(
        config_groups={"group_0": scheme}, ignore=["lm_head"], quantization_status="initialized"
    )
    apply_quantization_config(model, config)
    for module in model.modules():
        if getattr(module, "quantization_scheme", None):
            _calibrate(module, scheme)
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.save_pretrained(folder)
    compressor.update_config(folder)
    return _with_tokenizer(base, folder)


def compressed_apart(base: Path, folder: Path, preset: str) -> Path:
    """The same of every matrix that the base stores by itself, experts too, as llm-compressor stores a mixture:
    transformers holds experts in one tensor, which compressed-tensors alone does not quantize."""
    from compressed_tensors.compressors.base import compress_module
    from compressed_tensors.quantization import (
        QuantizationConfig,
        apply_quantization_config,
        preset_name_to_scheme,
    )

    tensors = load_file(base / "model.safetensors")
    layers = {name: tensors.pop(name) for name in list(tensors) if name.endswith("_proj.weight")}
    scheme = preset_name_to_scheme(preset, targets=["Linear"])
    left = {n.removesuffix(".weight") for n, t in tensors.items() if t.ndim == 2 and "embed" not in n}
    about = {"ignore": sorted(left), "quantization_status": "initialized"}
    for name, weight in layers.items():
        config = QuantizationConfig(config_groups={"group_0": scheme}, **about)
        linear = torch.nn.Linear(*reversed(weight.shape), bias=False, dtype=torch.bfloat16)
        linear.weight.data.copy_(weight)
        holder = torch.nn.ModuleDict({"layer": linear})
        apply_quantization_config(holder, config)
        _calibrate(linear, linear.quantization_scheme)
        compress_module(linear)
        tensors |= {f"{name.removesuffix('.weight')}.{n}": v for n, v in linear.state_dict().items()}
        form = str(linear.quantization_scheme.format.value)
    folder.mkdir()
    save_file({n: v.contiguous() for n, v in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    said = config.model_dump(mode="json") | {"quant_method": "compressed-tensors", "format": form}
    said |= {"quantization_status": "compressed"}
    said["config_groups"]["group_0"]["format"] = form
    model = json.loads((base / "config.json").read_text()) | {"quantization_config": said}
    (folder / "config.json").write_text(json.dumps(model))
    return _with_tokenizer(base, folder)


def _calibrate(module: Any, scheme: Any) -> None:
    """Fill in the scales: the weights' by their largest and smallest values, the inputs' by a fixed one."""
    from compressed_tensors.quantization.utils import calculate_qparams

    weight, arguments = module.weight.data.float(), scheme.weights
    largest_code = 448.0 * 6.0
    if hasattr(module, "weight_global_scale"):
        module.weight_global_scale.data.fill_(largest_code / weight.abs().max())
    if hasattr(module, "input_global_scale"):
        module.input_global_scale.data.fill_(largest_code / FIXED_ABSMAX)
    if hasattr(module, "input_scale"):
        module.input_scale.data.fill_(FIXED_ABSMAX / 448.0)
    low, high = _ranges(weight, arguments)
    scale, zero = calculate_qparams(
        low, high, arguments, global_scale=getattr(module, "weight_global_scale", None)
    )
    module.weight_scale.data.copy_(scale.reshape(module.weight_scale.shape))
    if hasattr(module, "weight_zero_point"):
        module.weight_zero_point.data.copy_(zero.reshape(module.weight_zero_point.shape))


def _ranges(weight: torch.Tensor, arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
    rows, columns = weight.shape
    match str(arguments.strategy):
        case "tensor":
            return weight.min().reshape(1), weight.max().reshape(1)
        case "channel":
            return weight.amin(1, keepdim=True), weight.amax(1, keepdim=True)
        case "block":
            high, wide = arguments.block_structure
            blocks = weight.reshape(-(-rows // high), -1, columns // wide, wide)
            return blocks.amin((1, 3)), blocks.amax((1, 3))
        case _:
            groups = weight.reshape(rows, -1, arguments.group_size)
            return groups.amin(-1), groups.amax(-1)


def _with_tokenizer(base: Path, folder: Path) -> Path:
    for file in (*base.glob("tokenizer*"), *base.glob("generation_config.json"), *base.glob("*.jinja")):
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def modelopt(base: Path, folder: Path, algorithm: str, in_config: bool = True) -> Path:
    """The model at `base` as ModelOpt's unified export stores it; ModelOpt itself does not run here."""
    folder.mkdir()
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in load_file(base / "model.safetensors").items():
        if not name.endswith("_proj.weight"):
            tensors[name] = tensor
            continue
        layer = name.removesuffix(".weight")
        tensors |= {
            f"{layer}.{part}": value
            for part, value in (_fp8(tensor) if algorithm == "FP8" else _nvfp4(tensor)).items()
        }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((base / "config.json").read_text())
    said = {"quant_algo": algorithm, "kv_cache_quant_algo": None, "exclude_modules": ["lm_head"]}
    if in_config:
        config["quantization_config"] = {"quant_method": "modelopt", **said, "producer": {"name": "modelopt"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "hf_quant_config.json").write_text(
        json.dumps({"producer": {"name": "modelopt"}, "quantization": said})
    )
    return _with_tokenizer(base, folder)


def _fp8(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    scale = weight.float().abs().max() / 448.0
    return {
        "weight": (weight.float() / scale).to(torch.float8_e4m3fn),
        "weight_scale": scale,
        "input_scale": torch.tensor(FIXED_ABSMAX / 448.0).to(torch.bfloat16).float(),
    }


def _nvfp4(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    blocks = weight.float().unflatten(-1, (-1, 16))
    whole = weight.float().abs().max() / (448.0 * 6.0)
    scale = (blocks.abs().amax(-1) / 6.0 / whole).to(torch.float8_e4m3fn)
    units = (blocks / (scale.float() * whole)[..., None]).flatten(-2)
    codes = (units.abs()[..., None] - E2M1).abs().argmin(-1) + 8 * (units < 0)
    return {
        "weight": (codes[:, ::2] + 16 * codes[:, 1::2]).to(torch.uint8),
        "weight_scale": scale,
        "weight_scale_2": whole,
        "input_scale": torch.tensor(FIXED_ABSMAX / (448.0 * 6.0)),
    }


def fp8_blocks(base: Path, folder: Path, size: int = 128) -> Path:
    """The model at `base` in FP8 with a scale per block, as DeepSeek V3 and Qwen3 are released."""
    folder.mkdir()
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in load_file(base / "model.safetensors").items():
        tensors[name] = tensor
        if name.endswith("_proj.weight"):
            rows, columns = tensor.shape
            blocks = tensor.float().reshape(rows // size, size, columns // size, size)
            scale = blocks.abs().amax((1, 3)) / 448.0
            codes = (blocks / scale[:, None, :, None]).reshape(rows, columns).to(torch.float8_e4m3fn)
            tensors |= {name: codes, name + "_scale_inv": scale}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((base / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "fp8",
        "activation_scheme": "dynamic",
        "weight_block_size": [size, size],
    }
    (folder / "config.json").write_text(json.dumps(config))
    return _with_tokenizer(base, folder)


def mxfp4_experts(base: Path, folder: Path) -> Path:
    """The gpt-oss model at `base` with its experts in MXFP4, as it is released."""
    folder.mkdir()
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in load_file(base / "model.safetensors").items():
        if name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            codes, exponents = _mxfp4(tensor.mT)
            packed = (codes[..., ::2] + 16 * codes[..., 1::2]).to(torch.uint8)
            tensors[name + "_blocks"] = packed.unflatten(-1, (-1, 16)).contiguous()
            tensors[name + "_scales"] = (exponents + 127).to(torch.uint8).contiguous()
        else:
            tensors[name] = tensor
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((base / "config.json").read_text())
    kept = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": kept}
    (folder / "config.json").write_text(json.dumps(config))
    return _with_tokenizer(base, folder)


def rounded_to_mxfp4(weight: torch.Tensor) -> torch.Tensor:
    """The values that MXFP4 keeps of a weight, groups of 32 along its last dimension."""
    codes, exponents = _mxfp4(weight)
    values = torch.cat((E2M1, -E2M1))[codes.long()]
    return values * torch.exp2(exponents.float()).repeat_interleave(32, -1)


def _mxfp4(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes, and one exponent per 32 of them."""
    blocks = weight.float().unflatten(-1, (-1, 32))
    exponents = torch.floor(torch.log2(blocks.abs().amax(-1).clamp(min=1e-30))) - 2
    units = blocks / torch.exp2(exponents)[..., None]
    codes = (units.abs()[..., None] - E2M1).abs().argmin(-1) + 8 * (units < 0)
    return codes.flatten(-2), exponents
