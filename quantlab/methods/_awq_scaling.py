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
from typing import Any

from quantlab.errors import CellFailure
from quantlab.methods._awq_groups import (
    Group,
    Trial,
    changes,
    divide,
    in_float32,
    joined,
    readers_of_norms,
    split_by_norm,
    storable,
    together,
    unlisted,
    unscaled_node,
)
from quantlab.outside import as_failure

PROBE_TOKENS = 48
TOLERANCE = 1e-3
"""Of the largest output: float32's rounding stays below 1e-5, a wrong group is at 0.1 or more."""


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
        self.unseen: collections.Counter[str] = collections.Counter()
        self.alone: collections.Counter[str] = collections.Counter()
        """Layers whose scales were searched without the module around them."""
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
        trial = Trial(copied, in_float32(positional), in_float32(named))
        self._trials[kind] = trial
        self._readers[kind] = readers_of_norms(trial)

    def mend(self, block: Any, nodes: list[dict[str, Any]], features: Any) -> list[dict[str, Any]]:
        """GPTQModel's nodes of a block, those of one norm joined, each tried."""
        names = {id(module): name for name, module in block.named_modules()}
        kind = kind_of(block)
        mended = []
        nodes = [*nodes, *unlisted(block, nodes, self._readers[kind], features)]
        nodes = [part for node in nodes for part in split_by_norm(node, names, self._readers[kind], features)]
        for group, node in joined(nodes, names, self._readers[kind]):
            if not node["inp"].numel():
                self.unseen.update(_without_number(name) for name in group.layers)
            elif self._is_valid(kind, group):
                self.scaled += 1
                mended.append(node | {"prev_op": block.get_submodule(group.before), "others": group.others})
            else:
                self.unscaled.update(_without_number(name) for name in group.layers)
        return mended or unscaled_node(block, features)

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
        reasons = (
            (self.unscaled, "which would change the model"),
            (self.unseen, "since GPTQModel keeps no input of theirs"),
        )
        rounded = tuple(
            f"AWQ rounds these layers without scaling, {why}: {_listed(layers)}."
            for layers, why in reasons
            if layers
        )
        alone = (
            "AWQ chose the scales of these layers by their own outputs, since GPTQModel cannot run the module"
            f" around them: {_listed(self.alone)}."
        )
        return (*rounded, alone) if self.alone else rounded


def _listed(layers: collections.Counter[str]) -> str:
    return ", ".join(f"{name} × {count}" for name, count in sorted(layers.items()))


def _without_number(name: str) -> str:
    return re.sub(r"\.\d+\.", ".*.", name)


def of_model(model: Any, token_ids: Any) -> Scaling:
    """The groups of a model that GPTQModel has loaded, tried on a few tokens."""
    from gptqmodel.utils.model import get_layers_with_prefixes

    blocks, _ = get_layers_with_prefixes(model.model, model.extract_layers_node())
    return Scaling(model.model, list(blocks), token_ids)


def kind_of(block: Any) -> str:
    """Blocks of one kind have the same modules."""
    return " ".join(name for name, _ in block.named_modules())


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
        # in place: GPTQModel divides the inputs that it clips with by the same
        scales.copy_(storable(norm, scales.to(norm.weight.device)))
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
    names = {id(module): name for name, module in block.named_modules()}
    if others is None:
        return names[id(before)], tuple(names[id(layer)] for layer in layers), None, 0.0
    scaling.remember(before, [block.get_submodule(name) for name in others])
    try:
        return search(processor, block, **node)
    except (TypeError, ValueError, RuntimeError) as error:
        if as_failure(error):  # memory that runs out is no matter of the module
            raise
        scaling.alone.update(_without_number(names[id(layer)]) for layer in layers)
        return search(processor, block, **node | {"module2inspect": together(layers), "kwargs": {}})
