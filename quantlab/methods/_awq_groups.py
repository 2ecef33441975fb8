"""Find the layers that AWQ may scale together, and try on a block whether scaling alone leaves it unchanged.

Norms are found by the tensors that flow, not by names: a layer reads a norm where it is given that norm's
very output."""

from __future__ import annotations

import collections
import copy
from collections.abc import Iterator
from typing import Any, NamedTuple


class Group(NamedTuple):
    """Layers that are scaled together, by their names in a block."""

    before: str
    """What is divided: a norm or a linear layer."""
    layers: tuple[str, ...]
    others: tuple[str, ...] = ()
    """Unquantized layers that read the same norm: they are multiplied too."""


class Trial(NamedTuple):
    """The first block of a kind in float32, and what it is called with."""

    block: Any
    positional: Any
    named: dict[str, Any]


def _is_norm(module: Any) -> bool:
    weight = getattr(module, "weight", None)
    return "norm" in type(module).__name__.lower() and weight is not None and weight.ndim == 1


def readers_of_norms(trial: Trial) -> dict[str, list[str]]:
    """Modules with a matrix that read the very output of a norm, by the norm's name."""
    written: dict[int, str] = {}
    readers: dict[str, list[str]] = collections.defaultdict(list)
    kept: list[Any] = []  # so that no address is given away twice

    def after(module: Any, given: Any, out: Any, name: str) -> None:
        if _is_norm(module) and hasattr(out, "untyped_storage"):
            kept.append(out)
            written[out.untyped_storage().data_ptr()] = name
        elif getattr(getattr(module, "weight", None), "ndim", 0) == 2 and given:
            norm = written.get(given[0].untyped_storage().data_ptr())
            if norm:
                readers[norm].append(name)

    hooks = [
        module.register_forward_hook(lambda m, given, out, name=name: after(m, given, out, name))
        for name, module in trial.block.named_modules()
        if name
    ]
    try:
        _run(trial)
    finally:
        for hook in hooks:
            hook.remove()
    return dict(readers)


def _run(trial: Trial) -> Any:
    import torch

    with torch.inference_mode():
        out = trial.block(*trial.positional, **trial.named)
    return (out[0] if isinstance(out, tuple) else out).clone()


def joined(
    nodes: list[dict[str, Any]], names: dict[int, str], readers: dict[str, list[str]]
) -> list[tuple[Group, dict[str, Any]]]:
    """Nodes with their groups: those that read one norm are one, behind the norm that really feeds them."""
    norm_of = {reader: norm for norm, read in readers.items() for reader in read}
    joined: dict[str, tuple[list[str], dict[str, Any]]] = {}
    single: list[tuple[Group, dict[str, Any]]] = []
    for node in nodes:
        layers = [names[id(layer)] for layer in node["layers"]]
        before = norm_of.get(layers[0], names[id(node["prev_op"])])
        if before not in readers:
            single.append((Group(before, tuple(layers)), node))
            continue
        known, first = joined.setdefault(before, ([], node))
        # a layer that is listed twice would be multiplied twice
        more = {names[id(layer)]: layer for layer in node["layers"] if names[id(layer)] not in known}
        first["layers"] = [*(first["layers"] if first is not node else ()), *more.values()]
        known += more
        if first is not node:
            first.setdefault("module2inspect", node.get("module2inspect"))
    made = []
    for before, (layers, node) in joined.items():
        others = tuple(name for name in readers[before] if name not in layers)
        if node.get("module2inspect") is None and len(layers) > 1:
            node["module2inspect"] = together(node["layers"])
        made.append((Group(before, tuple(layers), others), node))
    return [*made, *single]


def split_by_norm(
    node: dict[str, Any], names: dict[int, str], readers: dict[str, list[str]], features: Any
) -> Iterator[dict[str, Any]]:
    """A node by the norms that feed its layers: latent attention has two behind one another."""
    norm_of = {reader: norm for norm, read in readers.items() for reader in read}
    parts: dict[Any, list[Any]] = collections.defaultdict(list)
    for layer in node["layers"]:
        parts[norm_of.get(names[id(layer)]), layer.weight.shape[1]].append(layer)
    if len(parts) == 1:
        yield node
        return
    for layers in parts.values():
        name = names[id(layers[0])]
        around = {} if len(layers) == 1 else {"module2inspect": together(layers)}
        if name in features:
            yield {"prev_op": node["prev_op"], "layers": layers, "inp": features[name], **around}


def unlisted(
    block: Any, nodes: list[dict[str, Any]], readers: dict[str, list[str]], features: Any
) -> Iterator[dict[str, Any]]:
    """Nodes for layers behind a norm that GPTQModel does not list (Phi-3's norms are missing in its tree)."""
    listed = {id(layer) for node in nodes for layer in node["layers"]}
    for norm, names in readers.items():
        for name in names:
            layer = block.get_submodule(name)
            if id(layer) not in listed and name in features:
                yield {"prev_op": block.get_submodule(norm), "layers": [layer], "inp": features[name]}


def together(layers: list[Any]) -> Any:
    """Layers that read one input, as one module: what the search for scales compares."""
    from torch import nn

    class Together(nn.Module):
        def __init__(self, layers: list[Any]) -> None:
            super().__init__()
            self.layers = nn.ModuleList(layers)

        def forward(self, hidden_states: Any) -> Any:
            import torch

            return torch.cat([layer(hidden_states) for layer in self.layers], -1)

    return Together(layers)


def unscaled_node(block: Any, features: Any) -> list[dict[str, Any]]:
    """One node that scales nothing: without any, GPTQModel leaves a block out and stops at packing it."""
    from torch import nn

    name = next(
        name for name, module in block.named_modules() if isinstance(module, nn.Linear) and name in features
    )
    layer = block.get_submodule(name)
    return [{"prev_op": layer, "layers": [layer], "inp": features[name], "others": None}]


def changes(trial: Trial, group: Group) -> float:
    """How much a group's scaling alone changes a block's output, in parts of the largest one."""
    import torch

    before = _run(trial)
    layers = [trial.block.get_submodule(name) for name in (*group.layers, *group.others)]
    divided = trial.block.get_submodule(group.before)
    generator = torch.Generator().manual_seed(0)
    scales = torch.exp(torch.rand(layers[0].weight.shape[1], generator=generator) * 2 - 1)
    if divided.weight.shape[0] < scales.numel():
        return float("inf")  # another number of channels
    kept = [
        (tensor, tensor.clone()) for layer in (divided, *layers) for tensor in layer.parameters(recurse=False)
    ]
    with torch.inference_mode():
        divide(divided, scales)
        for layer in layers:
            layer.weight.mul_(scales)
        after = _run(trial)
        for tensor, value in kept:
            tensor.copy_(value)
    return float((after - before).abs().max() / before.abs().max())


def in_float32(value: Any) -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        return value.float() if value.is_floating_point() else value
    if isinstance(value, dict):
        return {key: in_float32(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(in_float32(part) for part in value)
    return value


def divide(before: Any, scales: Any) -> None:
    """Divide the output channels of a norm or a linear layer."""
    import torch
    from torch import nn

    with torch.inference_mode():
        weight = before.weight
        scales = scales.to(weight.device)
        if isinstance(before, nn.Linear):
            weight[-scales.numel() :].div_(scales[:, None])
            if before.bias is not None:
                before.bias[-scales.numel() :].div_(scales)
            return
        one = adds_one(before)
        weight.copy_(((weight.float() + one) / scales.float() - one).to(weight.dtype))
        if getattr(before, "bias", None) is not None:
            before.bias.div_(scales)


_STEP_ABOVE, _STEP_BELOW = 2.0**-8, 2.0**-7
"""Between -1 and bfloat16's next values above and below it."""


def storable(norm: Any, scales: Any) -> Any:
    """Scales near these by which the norm can be divided without loss: what is left is a bfloat16 value.

    A norm that multiplies by 1 + w is stored as w: divided by 100, w is near -1, where bfloat16 has steps of
    1/256, as large as what is left. At least one step is left of a channel, which is then scaled by less than
    was asked. One that gives nothing takes any scale: at 1 beside small ones it would set the step of its
    whole group."""
    import torch

    one = adds_one(norm)
    times = norm.weight.float() + one
    asked = scales.float()
    left = (times / asked - one).to(torch.bfloat16).float() + one
    if one:
        step = torch.where(times < 0, -_STEP_BELOW, _STEP_ABOVE)
        left = torch.where(left.abs() < step.abs(), step, left)
    nearby = times / left
    return torch.where(torch.isfinite(nearby) & (times != 0), nearby, asked).to(scales.dtype)


def adds_one(norm: Any) -> int:
    """1 for a norm that multiplies by 1 + w: with w = 0 it still gives something."""
    import torch

    with torch.inference_mode():
        empty = copy.deepcopy(norm)
        empty.weight.zero_()
        if getattr(empty, "bias", None) is not None:
            empty.bias.zero_()
        probe = torch.ones(1, norm.weight.numel(), device=norm.weight.device, dtype=norm.weight.dtype)
        probe[:, ::2] = -1
        return int(bool(empty(probe).abs().max() > 0))
