"""Let bitsandbytes' LLM.int8 layers take inputs of any number of dimensions.

bitsandbytes 0.50 flattens an input of three dimensions and takes one of two; with four it mixes up positions
and columns, or stops. DeepSeek V3's latent attention gives its keys and values such inputs in transformers
5."""

from __future__ import annotations

from typing import Any

_FLATTENED = "_quantlab_flattened"


def take_any_shape(model: Any) -> None:
    """Flatten what the model's LLM.int8 layers are given to two dimensions, and shape their output back."""
    from bitsandbytes.nn.modules import Linear8bitLt

    for module in model.modules():
        if isinstance(module, Linear8bitLt) and not hasattr(module, _FLATTENED):
            setattr(module, _FLATTENED, False)
            module.register_forward_pre_hook(_flatten)
            module.register_forward_hook(_shape_back)


def flattened(model: Any) -> list[str]:
    """Names of the layers that were given more than three dimensions so far."""
    return [name for name, module in model.named_modules() if getattr(module, _FLATTENED, False)]


def _flatten(module: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
    module._quantlab_shape = given[0].shape
    if given[0].ndim <= 3:
        return given
    setattr(module, _FLATTENED, True)
    return (given[0].reshape(-1, given[0].shape[-1]), *given[1:])


def _shape_back(module: Any, given: tuple[Any, ...], out: Any) -> Any:
    return out.reshape(*module._quantlab_shape[:-1], out.shape[-1])
