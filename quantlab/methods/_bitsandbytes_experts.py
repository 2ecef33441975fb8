"""Quantize Llama 4's experts one by one with bitsandbytes, as transformers reads them from a checkpoint.

transformers holds a layer's experts in one tensor (experts, inputs, outputs), which bitsandbytes leaves in 16
bits, and it saves them so. When it loads a bitsandbytes checkpoint it makes them modules of their own
(MODULES_TO_PATCH_FOR_QUANTIZATION) and looks for one tensor of each. Here they are made so while quantizing
too, and the tensors of the files are taken apart as they are loaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from quantlab.models.experts import Layout

_MODEL_TYPE = "llama4_text"
_SOURCES = {
    "feed_forward.experts.gate_up_proj": ("gate_proj", "up_proj"),
    "feed_forward.experts.down_proj": ("down_proj",),
}
"""Tensors of a layer's experts, and the matrices that each holds side by side along its outputs."""


def take_apart(model: Any) -> None:
    """Give a model without weights the experts that transformers reads from a bitsandbytes checkpoint."""
    import torch
    from transformers.quantizers.base import MODULES_TO_PATCH_FOR_QUANTIZATION

    patches: dict[str, Any] = MODULES_TO_PATCH_FOR_QUANTIZATION
    for name, module in list(model.named_modules()):
        patch = patches.get(type(module).__name__)
        if patch and "bitsandbytes" in patch["quantization_methods"]:
            with torch.device("meta"):
                model.set_submodule(name, patch["module_name"](model.config.get_text_config()))


@contextmanager
def experts_apart() -> Iterator[None]:
    """Build models with such experts and fill them from the files' tensors, during the block."""
    from transformers import conversion_mapping
    from transformers.quantizers.base import HfQuantizer

    mapping: Any = conversion_mapping
    kind: Any = HfQuantizer
    prepare = kind.preprocess_model

    def prepare_apart(quantizer: Any, model: Any, *given: Any, **options: Any) -> None:
        take_apart(model)
        prepare(quantizer, model, *given, **options)

    mapping.register_checkpoint_conversion_mapping(_MODEL_TYPE, _converters())
    kind.preprocess_model = prepare_apart
    try:
        yield
    finally:
        kind.preprocess_model = prepare
        mapping._checkpoint_conversion_mapping_cache.pop(_MODEL_TYPE)
        mapping.USER_REGISTERED_MAPPINGS.discard(_MODEL_TYPE)


def _converters() -> list[Any]:
    from transformers.core_model_loading import ConversionOps, WeightConverter

    class OneByOne(ConversionOps):
        """The matrices (outputs, inputs) of each expert, of a tensor (experts, inputs, outputs)."""

        def __init__(self, matrices: tuple[str, ...]) -> None:
            self.layout = Layout(matrices, exchanged=True, in_turn=False, bias=False)

        def convert(self, input_dict: dict[str, Any], *_: Any, **__: Any) -> dict[str, Any]:
            (tensors,) = input_dict.values()
            stacked = tensors[0] if isinstance(tensors, list) else tensors
            return {
                _target(matrix, expert): part.contiguous()
                for matrix, experts in self.layout.apart(stacked).items()
                for expert, part in enumerate(experts)
            }

    return [
        WeightConverter(source, _target(matrices[0], 0), [OneByOne(matrices)])
        for source, matrices in _SOURCES.items()
    ]


def _target(matrix: str, expert: int) -> str:
    return f"feed_forward.experts.{expert}.{matrix}.weight"


def keep_apart(model: Any) -> None:
    """Let transformers save the experts one by one: it would put back together what it took apart."""
    used = getattr(model, "_weight_conversions", None) or []
    model._weight_conversions = [each for each in used if not set(each.source_patterns) & set(_SOURCES)]
