"""Keep AWQ's scaling from changing the model: GPTQModel's groups, each tried on the layer and mended.

AWQ divides the channels of a norm or a projection and multiplies those of the layers behind it: without
rounding, the model stays the same. GPTQModel lists these groups by the names of each family, which is wrong
where a norm multiplies by 1 + w (Qwen3.5, Gemma 3), where the norm before a layer is another one (Gemma's
feed-forward), where a layer that stays in 16 bits reads the same norm (a router, a gate), and where something
that is not linear stands between the two (Qwen3.5's gated output). Here every group is tried on the first
block of its kind, in float32: norms are found by the tensors that flow, other readers of a norm are scaled
too, and what still changes the block's output is quantized without scaling."""

from __future__ import annotations

import collections
import copy
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from quantlab.errors import CellFailure

PROBE_TOKENS = 48
TOLERANCE = 1e-3
"""Of the largest output: float32's rounding stays below 1e-5, a wrong group is at 0.1 or more."""


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


class Scaling:
    """The mended groups of one model."""

    def __init__(self, model: Any, blocks: list[Any], token_ids: Any) -> None:
        """Run the model once on a few tokens and keep the first block of each kind with its input."""
        import torch

        self._trials: dict[str, Trial] = {}
        self._readers: dict[str, dict[str, list[str]]] = {}
        self._tried: dict[tuple[str, Group], bool] = {}
        self._others: dict[int, list[Any]] = {}
        self.unscaled: collections.Counter[str] = collections.Counter()
        self.scaled = 0
        hooks = [block.register_forward_pre_hook(self._keep, with_kwargs=True) for block in blocks]
        try:
            with torch.inference_mode():
                model(input_ids=torch.as_tensor(token_ids[:PROBE_TOKENS])[None], use_cache=False)
        finally:
            for hook in hooks:
                hook.remove()

    def _keep(self, block: Any, positional: Any, named: dict[str, Any]) -> None:
        kind = kind_of(block)
        if kind in self._trials:
            return
        copied = copy.deepcopy(block).float()
        copied._forward_pre_hooks.clear()
        trial = Trial(copied, _in_float32(positional), _in_float32(named))
        self._trials[kind] = trial
        self._readers[kind] = readers_of_norms(trial)

    def mend(self, block: Any, nodes: list[dict[str, Any]], features: Any) -> list[dict[str, Any]]:
        """GPTQModel's nodes of a block, those of one norm joined, each tried."""
        names = {id(module): name for name, module in block.named_modules()}
        kind = kind_of(block)
        mended = []
        nodes = [*nodes, *_unlisted(block, nodes, self._readers[kind], features)]
        for group, node in _joined(nodes, names, self._readers[kind]):
            if self._is_valid(kind, group):
                self.scaled += 1
                mended.append(node | {"prev_op": block.get_submodule(group.before), "others": group.others})
            else:
                self.unscaled.update(re.sub(r"\.\d+\.", ".*.", name) for name in group.layers)
        return mended or _unscaled_node(block, features)

    def _is_valid(self, kind: str, group: Group) -> bool:
        if (kind, group) not in self._tried:
            self._tried[kind, group] = changes(self._trials[kind], group) < TOLERANCE
        return self._tried[kind, group]

    def remember(self, before: Any, others: list[Any]) -> None:
        """Layers to multiply when this one is divided."""
        self._others[id(before)] = others

    def others_of(self, before: Any) -> list[Any]:
        """The same, once."""
        return self._others.pop(id(before), [])

    def notes(self) -> tuple[str, ...]:
        """What a reader must know. Raises CellFailure where nothing could be scaled."""
        if not self.scaled:
            raise CellFailure(
                "unsupported",
                "AWQ has no layers here whose scaling leaves the model unchanged, so it would only round to"
                " nearest: use gptq or autoround",
            )
        if not self.unscaled:
            return ()
        listed = ", ".join(f"{name} × {count}" for name, count in sorted(self.unscaled.items()))
        return (f"AWQ rounds these layers without scaling, which would change the model: {listed}.",)


def of_model(model: Any, token_ids: Any) -> Scaling:
    """The groups of a model that GPTQModel has loaded, tried on a few tokens."""
    from gptqmodel.utils.model import get_layers_with_prefixes

    blocks, _ = get_layers_with_prefixes(model.model, model.extract_layers_node())
    return Scaling(model.model, list(blocks), token_ids)


def kind_of(block: Any) -> str:
    """Blocks of one kind have the same modules."""
    return " ".join(name for name, _ in block.named_modules())


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


def _joined(
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
        known += [name for name in layers if name not in known]
        if first is not node:
            first["layers"] = [*first["layers"], *node["layers"]]
            first.setdefault("module2inspect", node.get("module2inspect"))
    made = []
    for before, (layers, node) in joined.items():
        others = tuple(name for name in readers[before] if name not in layers)
        if node.get("module2inspect") is None and len(layers) > 1:
            node["module2inspect"] = _together(node["layers"])
        made.append((Group(before, tuple(layers), others), node))
    return [*made, *single]


def _unlisted(
    block: Any, nodes: list[dict[str, Any]], readers: dict[str, list[str]], features: Any
) -> Iterator[dict[str, Any]]:
    """Nodes for layers behind a norm that GPTQModel does not list (Phi-3's norms are missing in its tree)."""
    listed = {id(layer) for node in nodes for layer in node["layers"]}
    for norm, names in readers.items():
        for name in names:
            layer = block.get_submodule(name)
            if id(layer) not in listed and name in features:
                yield {"prev_op": block.get_submodule(norm), "layers": [layer], "inp": features[name]}


def _together(layers: list[Any]) -> Any:
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


def _unscaled_node(block: Any, features: Any) -> list[dict[str, Any]]:
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


def _in_float32(value: Any) -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        return value.float() if value.is_floating_point() else value
    if isinstance(value, dict):
        return {key: _in_float32(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_in_float32(part) for part in value)
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


@contextmanager
def mended(scaling: Scaling, model: Any) -> Iterator[None]:
    """GPTQModel's `model` with its groups mended, during the block."""
    from gptqmodel.looper import awq_processor as processors
    from gptqmodel.quantization.awq.quantize import scale as library

    groups, search = model.awq_get_modules_for_scaling, processors.AWQProcessor._search_best_scale
    apply_scale, norms = processors.apply_scale, library.scale_ln_fcs

    def mended_groups(block: Any, features: Any, options: Any) -> list[dict[str, Any]]:
        return scaling.mend(block, groups(block, features, options), features)

    def mended_search(processor: Any, block: Any, **node: Any) -> Any:
        return _search(scaling, search, processor, block, node)

    def mended_norms(norm: Any, layers: Any, scales: Any) -> None:
        divide(norm, scales)
        for layer in (*(layers if isinstance(layers, list) else [layers]), *scaling.others_of(norm)):
            layer.weight.data.mul_(scales.view(1, -1).to(layer.weight))

    def mended_apply(block: Any, found: Any, **options: Any) -> None:
        apply_scale(block, [each for each in found if each[2] is not None], **options)

    model.awq_get_modules_for_scaling = mended_groups
    processors.AWQProcessor._search_best_scale = mended_search
    processors.apply_scale = mended_apply
    library.scale_ln_fcs = mended_norms
    try:
        yield
    finally:
        del model.awq_get_modules_for_scaling
        processors.AWQProcessor._search_best_scale = search
        processors.apply_scale = apply_scale
        library.scale_ln_fcs = norms


def _search(scaling: Scaling, search: Any, processor: Any, block: Any, node: dict[str, Any]) -> Any:
    """The scales of a group: none where it is not scaled; on the layers' own outputs where GPTQModel cannot
    run the module around them (rotary embeddings by kind of layer, masks of sliding windows)."""
    others = node.pop("others")
    before, layers = node["prev_op"], node["layers"]
    if others is None:
        names = {id(module): name for name, module in block.named_modules()}
        return names[id(before)], tuple(names[id(layer)] for layer in layers), None, 0.0
    scaling.remember(before, [block.get_submodule(name) for name in others])
    try:
        return search(processor, block, **node)
    except (TypeError, RuntimeError):
        return search(processor, block, **node | {"module2inspect": _together(layers), "kwargs": {}})
