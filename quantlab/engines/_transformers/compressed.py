"""Load a checkpoint of compressed-tensors: in FP8 where the GPU multiplies it, else unpacked in memory, with
activations rounded as a kernel does.

The library rounds activations in the dtype of the model: in bfloat16 that is as coarse as the rounding to 8
bits itself (half a code), and a kernel has no such error. So models with rounded activations compute in
float32.

Experts that transformers holds in one tensor are unpacked while they load, and what enters them is rounded
too, but where FP8 kernels run: there they compute in 16 bits. Where the files hold them one by
one and transformers has no rule that puts them together, it is given one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers.core_model_loading import ConversionOps, WeightConverter

from quantlab.engines._transformers.compressed_experts import all_parts
from quantlab.engines._transformers.compressed_zeros import zeros_packed
from quantlab.formats.json_file import read_object
from quantlab.formats.quantization import quantization_config
from quantlab.formats.safetensors import header, weight_files
from quantlab.models.experts import Layout, holds_experts, layout_of
from quantlab.models.rounded_experts import Rounding, round_experts

CAPABILITY = (8, 9)
"""The first with FP8 instructions (quantizer_compressed_tensors.py of transformers 5.23)."""
MULTIPLE = 16
"""Of both sides of a matrix that torch.nn.functional.scaled_mm takes."""
_OF_EXPERT = re.compile(r"(^|\.)experts\.\d+\.(gate_proj|up_proj|down_proj)\.(weight|weight_scale|bias)$")


def load_compressed(weights: Path, device: str, trust_remote_code: bool, dtype: str, places: Any) -> Any:
    """The model of a checkpoint. Raises CellFailure where its tensors are not those of its config.json."""
    from transformers import CompressedTensorsConfig

    from quantlab.models.loading import broken_checkpoint, load_model

    capability = torch.cuda.get_device_capability(device) if device.startswith("cuda") else None
    how = {"dtype": dtype, **places}
    if runs_in_fp8(weights, capability):
        how["quantization_config"] = CompressedTensorsConfig(use_optimized_inference=True)
    with experts_put_together(weights, trust_remote_code), all_parts(weights), zeros_packed():
        return unpack(load_model(weights, trust_remote_code, broken_checkpoint, left_over=True, **how))


def runs_in_fp8(weights: Path, capability: tuple[int, int] | None) -> bool:
    """Whether transformers' FP8 kernels take the checkpoint on a GPU of this compute capability; None for a
    CPU. No GPU has run this."""
    if capability is None or capability < CAPABILITY:
        return False
    whole = read_object(weights / "config.json")
    text = whole.get("text_config") or {}
    if "bfloat16" not in [said.get(key) for said in (whole, text) for key in ("dtype", "torch_dtype")]:
        return False  # what the kernel with a scale per row gives
    config = quantization_config(weights)
    groups = config.get("config_groups")
    said = [group.get("weights") or {} for group in groups.values()] if isinstance(groups, dict) else []
    if not any(each.get("type") == "float" and each.get("num_bits") == 8 for each in said):
        return False
    sides = (
        side
        for path in weight_files(weights)
        for entry in header(path).values()
        if entry["dtype"] == "F8_E4M3" and len(entry["shape"]) == 2
        for side in entry["shape"]
    )
    return all(side % MULTIPLE == 0 for side in sides)


def unpack(model: Any) -> Any:
    """The model with its weights unpacked, in float32 where activations are rounded; as it is where FP8
    kernels run it."""
    quantizer = model.hf_quantizer
    if getattr(quantizer, "use_fp8_kernel", False):
        return model
    quantizer.compressor.decompress_model(model)
    groups = quantizer.compressor.quantization_config.config_groups.values()
    if any(group.input_activations for group in groups):
        # transformers refuses to cast a quantized model: here none of its weights are packed any more
        torch.nn.Module.float(model)
    if rounding := _rounding_of_experts(quantizer.compressor.quantization_config):
        round_experts(model, rounding)
    for module in model.modules():
        scheme = getattr(module, "quantization_scheme", None)
        if scheme and scheme.input_activations and str(scheme.input_activations.strategy) == "token":
            _see_tokens(module)
    return model


def _rounding_of_experts(config: Any) -> Rounding | None:
    """How activations that enter fused experts are rounded, which the library's layers do not see: None where
    they stay, or where each layer has a scale of its own in the files."""
    from compressed_tensors.quantization.lifecycle.forward import fake_quantize
    from compressed_tensors.quantization.utils import compute_dynamic_scales_and_zp
    from transformers.integrations.compressed_tensors import get_experts_scheme

    arguments = get_experts_scheme(config).input_activations
    if arguments is None or arguments.dynamic is not True or str(arguments.strategy) != "token":
        return None

    def rounded(inputs: torch.Tensor) -> torch.Tensor:
        batch = inputs[None]
        scale, zero = compute_dynamic_scales_and_zp(batch, arguments, None)
        made: torch.Tensor = fake_quantize(batch, scale, zero, arguments)[0]
        return made

    return rounded


def _see_tokens(module: Any) -> None:
    """Let a layer see its input as one batch of tokens: compressed-tensors 0.20 takes the first two
    dimensions for batch and token whatever there are, and would give tokens in two dimensions, as experts see
    them, one scale for all, and a latent in four one per sequence. Kernels give each token its own."""
    forward = module.forward

    def by_token(inputs: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = forward(inputs.reshape(1, -1, inputs.shape[-1]))
        return made.reshape(*inputs.shape[:-1], -1)

    module.forward = by_token


@contextmanager
def experts_put_together(weights: Path, trust_remote_code: bool) -> Iterator[None]:
    """Give transformers, for the block, rules that put experts together where it has none of its own."""
    from transformers import conversion_mapping

    model = _unquantized(weights, trust_remote_code)
    rules = _lacking(model, weights)
    if not rules:
        yield
        return
    own = conversion_mapping.extract_weight_conversions_for_model(model) or []
    known: Any = conversion_mapping._checkpoint_conversion_mapping_cache
    name = type(model).__name__
    name = name if name in known else model.config.model_type  # the order in which transformers looks
    before = known.get(name)
    known[name] = [*own, *rules]
    try:
        yield
    finally:
        if before is None:
            del known[name]
        else:
            known[name] = before


def _unquantized(weights: Path, trust_remote_code: bool) -> Any:
    from quantlab.models.loading import broken_checkpoint, build_on_meta, load_config

    config = load_config(weights, trust_remote_code, broken_checkpoint)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    return build_on_meta(config, trust_remote_code, broken_checkpoint)


def _lacking(model: Any, weights: Path) -> list[WeightConverter]:
    """Rules for parameters of experts that no stored tensor becomes, though the files hold single experts."""
    from transformers.quantizers.base import MODULES_TO_PATCH_FOR_QUANTIZATION as TAKEN_APART

    from quantlab.models.stored_names import places_of

    names = [name for path in weight_files(weights) for name in header(path)]
    if not any(_OF_EXPERT.search(name) for name in names):
        return []
    found = {place.parameter for place in places_of(model, names).values()}
    rules: dict[str, WeightConverter] = {}
    for owner, module in model.named_modules():
        if not holds_experts(module) or type(module).__name__ in TAKEN_APART:
            continue
        for key, _ in module.named_parameters(recurse=False):
            if f"{owner}.{key}" not in found:
                rules.setdefault(key, _rule(owner.rpartition(".")[2], key, layout_of(module, key)))
    return list(rules.values())


def _rule(experts: str, key: str, layout: Layout) -> WeightConverter:
    part = "bias" if layout.bias else "weight"
    sources = [f"{experts}.*.{name}.{part}" for name in layout.parts]
    return WeightConverter(sources, f"{experts}.{key}", [PutTogether(layout)])


class PutTogether(ConversionOps):
    """Put tensors of single experts together to one of all."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def convert(
        self, input_dict: dict[str, Any], source_patterns: list[str], target_patterns: list[str], **_: Any
    ) -> dict[str, Any]:
        """One tensor for the target of the sources' tensors, each a list or stacked already."""
        parts = [input_dict[pattern] for pattern in source_patterns if pattern in input_dict]
        stacked = [torch.stack(part) if isinstance(part, list) else part for part in parts]
        return {target_patterns[0]: self.layout.together(stacked)}
