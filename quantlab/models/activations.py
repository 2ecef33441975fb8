"""Find how large a model's activations become: what float16 does not hold, a kernel that computes in it turns
into infinity, and the logits into no number.

Seen is what modules give and what layers are given: residual streams, products and inputs of matrices. What
stays inside one module (scores of attention, fused experts) is not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FLOAT16 = "float16"
FLOAT16_LARGEST = 65504.0


class Largest(NamedTuple):
    """The largest absolute value of a run."""

    value: float
    module: str
    """The module that gave it, or was given it; empty where nothing ran."""

    @property
    def fits_float16(self) -> bool:
        """Whether float16 holds it."""
        return self.value <= FLOAT16_LARGEST

    def said(self) -> str:
        """In words, for a sentence about the unquantized model."""
        return f"activations reach {self.value:,.0f} ({self.module}), float16 holds {FLOAT16_LARGEST:,.0f}"


class WatchedActivations:
    """Keeps the largest value of every module of a model that runs, on the module's own device."""

    def __init__(self, model: Any) -> None:
        self._largest: dict[str, Any] = {}
        self._hooks = [
            module.register_forward_hook(self._hook(name, is_layer=not any(module.children())))
            for name, module in model.named_modules()
            if name
        ]

    def _hook(self, name: str, is_layer: bool) -> Any:
        def after(_module: Any, given: Any, out: Any) -> None:
            for tensor in (*_floating(out), *(_floating(given) if is_layer else ())):
                self._add(name, tensor)

        return after

    def _add(self, name: str, tensor: Any) -> None:
        """A tensor that is not finite is left out: masks are made of infinities."""
        import torch

        low, high = torch.aminmax(tensor.detach())
        largest = torch.nan_to_num(torch.maximum(-low, high).float(), nan=0.0, posinf=0.0)
        known = self._largest.get(name)
        self._largest[name] = largest if known is None else torch.maximum(known, largest.to(known.device))

    def close(self) -> Largest:
        """Stop watching; what was found."""
        for hook in self._hooks:
            hook.remove()
        values = {name: float(value) for name, value in self._largest.items()}
        name = max(values, key=lambda each: values[each], default="")
        return Largest(values.get(name, 0.0), name)


def _floating(value: Any) -> Iterator[Any]:
    """The tensors of floating-point numbers in what a module was given or gave."""
    import torch

    if isinstance(value, torch.Tensor):
        kept = value.dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)
        if kept and value.numel() and value.device.type != "meta":
            yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _floating(part)


def largest_activation(model: Any, token_ids: NDArray[np.int64]) -> Largest:
    """Run token ids (length,) through a loaded model and find the largest value."""
    import torch

    watched = WatchedActivations(model)
    try:
        with torch.inference_mode():
            place = model.get_input_embeddings().weight.device
            place = torch.device("cpu") if place.type == "meta" else place
            model(input_ids=torch.as_tensor(token_ids)[None].to(place), use_cache=False)
    finally:
        found = watched.close()
    return found
