"""Place the tensors of a transformers model: one device, or several that accelerate fills in order.

Splitting over GPUs has not run on any; offloading to the disk has, from a CPU.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping
from typing import Any

from quantlab.hardware.device import parse_places
from quantlab.hardware.memory import available_bytes

_KEPT_FREE = 0.1
"""Share of every place's free memory that is left for activations and the cache."""


def placement(device: str, offload_folder: str) -> dict[str, Any]:
    """Arguments of `from_pretrained` that put the model on the device, or over its several places."""
    places = parse_places(device)
    if not places.several:
        return {"device_map": {"": places.first}}
    return {"device_map": "auto", "max_memory": _limits(device), "offload_folder": offload_folder}


def _limits(device: str) -> dict[int | str, int]:
    """Bytes that each place may take: nine tenths of what is free. accelerate sends the rest to the disk."""
    import torch

    places = parse_places(device)
    limits: dict[int | str, int] = {
        gpu: int((1 - _KEPT_FREE) * torch.cuda.mem_get_info(gpu)[0]) for gpu in places.gpus
    }
    if places.cpu:
        limits["cpu"] = int((1 - _KEPT_FREE) * available_bytes())
    return limits


def check_disk(model: Any, device: str) -> bool:
    """Whether the model stayed within the places that were named (accelerate goes on to the disk by
    itself)."""
    return parse_places(device).disk or "disk" not in _map(model).values()


def bytes_by_place(model: Any) -> dict[str, int]:
    """Bytes of weights and buffers by place; tensors that share their storage once.

    What is offloaded stands on the meta device until its layer runs, so it is counted where the map says it
    lies."""
    sizes: collections.Counter[str] = collections.Counter()
    where, seen = _map(model), set[tuple[str, int]]()
    for name, tensor in tensors(model):
        place = _place(name, where) if tensor.device.type == "meta" else str(tensor.device)
        storage = tensor.untyped_storage()
        key = (place, storage.data_ptr() or hash(name))
        if key not in seen:
            seen.add(key)
            sizes[place] += storage.nbytes()
    return dict(sizes)


def tensors(model: Any) -> Iterator[tuple[str, Any]]:
    """Parameters and buffers, and what bitsandbytes hangs on its parameters: scales and codebooks."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        yield name, tensor
        for part, extra in _hung(tensor):
            yield f"{name}.{part}", extra


def _hung(holder: Any) -> Iterator[tuple[str, Any]]:
    import torch

    for key in ("quant_state", "SCB", "absmax", "code", "offset", "state2"):
        value = getattr(holder, key, None)
        if isinstance(value, torch.Tensor):
            yield key, value
        elif value is not None:
            yield from ((f"{key}.{part}", tensor) for part, tensor in _hung(value))


def _map(model: Any) -> Mapping[str, str]:
    """Module names and where they lie, by accelerate's map."""
    device_map: Mapping[str, Any] = getattr(model, "hf_device_map", None) or {}
    return {
        name: f"cuda:{place}" if isinstance(place, int) else str(place) for name, place in device_map.items()
    }


def _place(name: str, where: Mapping[str, str]) -> str:
    fitting = [module for module in where if not module or name == module or name.startswith(f"{module}.")]
    return where[max(fitting, key=len)] if fitting else "cpu"
