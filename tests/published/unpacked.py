"""Dequantize checkpoints by the functions of the libraries that made them: what a loss is checked against.

A packed layer's tensors are read from the file and given to the library's own function; the model is then the
base's with these weights. Nothing of quantlab is called."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Parts = dict[str, torch.Tensor]


def write_dense(base: Path, checkpoint: Path, folder: Path) -> Path:
    """Write the base with the weights that a checkpoint's packed layers stand for."""
    section = json.loads((checkpoint / "config.json").read_text())["quantization_config"]
    unpack = _UNPACK[section["quant_method"]]
    stored = _tensors(checkpoint)
    mark = _MARKS[section["quant_method"]]
    packed = {name.removesuffix(mark) for name in stored if name.endswith(mark)}
    tensors = _tensors(base)
    for name, value in stored.items():
        if name in tensors and name.rpartition(".")[0] not in packed:
            tensors[name] = value  # AWQ changes norms too
    for layer in packed:
        parts = {n.removeprefix(f"{layer}."): v for n, v in stored.items() if n.startswith(f"{layer}.")}
        weight = unpack(parts, section)
        assert tensors[f"{layer}.weight"].shape == weight.shape, layer
        # a code of FP8 times its scale is a float32, which a kernel adds up as it is
        kept_in = torch.float32 if section["quant_method"] == "modelopt" else torch.bfloat16
        tensors[f"{layer}.weight"] = weight.to(kept_in).contiguous()
    assert packed
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_bytes((base / "config.json").read_bytes())
    return folder


def _tensors(folder: Path) -> Parts:
    return {name: value for path in folder.glob("*.safetensors") for name, value in load_file(path).items()}


def _gptq(parts: Parts, section: dict[str, Any]) -> torch.Tensor:
    """GPTQModel's TorchLinear."""
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    from gptqmodel.utils.model import convert_gptq_v1_to_v2_format_module

    bits, inputs, outputs = section["bits"], parts["g_idx"].shape[0], parts["qweight"].shape[1]
    layer = TorchLinear(bits, section["group_size"], section["sym"], section["desc_act"], inputs, outputs)
    layer.load_state_dict(parts, strict=False)
    if section.get("checkpoint_format", "gptq") == "gptq":
        convert_gptq_v1_to_v2_format_module(layer, bits, torch.int32)
    weight: torch.Tensor = TorchLinear.__mro__[1].dequantize_weight(layer.eval())  # the plain one
    return weight.T


def _awq(parts: Parts, section: dict[str, Any]) -> torch.Tensor:
    """GPTQModel's dequantize_gemm, autoawq's own."""
    from gptqmodel.quantization.awq.utils.packing_utils import dequantize_gemm

    scales = parts["scales"].float()
    weight: torch.Tensor = dequantize_gemm(
        parts["qweight"], parts["qzeros"], scales, section["bits"], section["group_size"]
    )
    return weight.T


def _auto_round(parts: Parts, section: dict[str, Any]) -> torch.Tensor:
    """auto-round's torch kernel, which multiplies the identity; its v1 file has zero points less one."""
    from auto_round_extension.torch.qlinear_torch_zp import QuantLinear

    outputs = parts["qweight"].shape[1]
    inputs = parts["qweight"].shape[0] * 32 // section["bits"]
    layer = QuantLinear(section["bits"], section["group_size"], inputs, outputs, bias=False)
    layer.load_state_dict(parts, strict=False)
    layer.post_init()
    return layer(torch.eye(inputs)).T


def _bitsandbytes(parts: Parts, section: dict[str, Any]) -> torch.Tensor:
    """bitsandbytes' dequantize_4bit."""
    from bitsandbytes.functional import QuantState, dequantize_4bit

    said = {name.removeprefix("weight."): value for name, value in parts.items() if name != "weight"}
    state = QuantState.from_dict(said, torch.device("cpu"))
    weight: torch.Tensor = dequantize_4bit(parts["weight"], state)
    return weight


def _compressed_tensors(parts: Parts, section: dict[str, Any]) -> torch.Tensor:
    """The compressor that the file names."""
    from compressed_tensors.compressors.base import BaseCompressor
    from compressed_tensors.quantization import QuantizationConfig

    group = next(iter(section["config_groups"].values()))
    scheme = QuantizationConfig.model_validate(section).config_groups["group_0"]
    compressor: Any = BaseCompressor.get_value_from_registry(group.get("format") or section["format"])
    weight: torch.Tensor = compressor.decompress(dict(parts), scheme)["weight"]
    return weight


def _modelopt(parts: Parts, section: dict[str, Any]) -> torch.Tensor:
    """ModelOpt's FP8: a code times its layer's scale."""
    return parts["weight"].float() * parts["weight_scale"].float()


_UNPACK: dict[str, Callable[[Parts, dict[str, Any]], torch.Tensor]] = {
    "gptq": _gptq,
    "awq": _awq,
    "auto-round": _auto_round,
    "bitsandbytes": _bitsandbytes,
    "compressed-tensors": _compressed_tensors,
    "modelopt": _modelopt,
}
_MARKS = {
    "gptq": ".qweight",
    "awq": ".qweight",
    "auto-round": ".qweight",
    "bitsandbytes": ".weight.absmax",
    "compressed-tensors": ".weight_scale",
    "modelopt": ".weight_scale",
}
"""By what a packed layer is known."""
