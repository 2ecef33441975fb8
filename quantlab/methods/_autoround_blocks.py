"""Run each block of a model with what the model itself gives it, while auto-round calibrates.

auto-round keeps what the first block is called with, and calls every block with that. In models with several
kinds of layers the others would get another kind's attention mask and rotary embedding (Gemma 3's sliding and
full attention, Qwen3.5's linear attention), or none at all (a dictionary, as DeepSeek V4's, is not kept).
Here each block's own arguments are recorded once, and those that do not depend on the text take the place of
the first block's: all calibration windows are of one length and none is padded. Token ids, by which DeepSeek
V4's first layers choose experts, go by another name on their way, since auto-round calls hidden states so."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

_IDS, _ALIAS = "input_ids", "token_ids_of_the_window"


def recorded(model: Any, names: Sequence[str], windows: Sequence[Any]) -> dict[str, dict[str, Any]]:
    """The named arguments that are the same for two windows (1, length), by block."""
    first, second = ({}, {}) if len(windows) < 2 else (_arguments(model, names, ids) for ids in windows[:2])
    return {
        name: {key: value for key, value in first[name].items() if _same(value, second[name].get(key))}
        for name in first
    }


def _arguments(model: Any, names: Sequence[str], token_ids: Any) -> dict[str, dict[str, Any]]:
    import torch

    found: dict[str, dict[str, Any]] = {}
    hooks = [
        model.get_submodule(name).register_forward_pre_hook(
            lambda _, __, named, name=name: found.__setitem__(name, dict(named)), with_kwargs=True
        )
        for name in names
    ]
    try:
        with torch.no_grad():  # no inference mode: auto-round computes gradients through these tensors
            model(input_ids=token_ids.to(model.device), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _same(one: Any, other: Any) -> bool:
    """Whether two arguments are equal, tensors by their values. What is neither data nor made of it is not,
    such as a cache."""
    import torch

    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        keys = isinstance(other, dict) and one.keys() == other.keys()
        return keys and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(_same, one, other))
    return isinstance(one, str | bool | int | float | None) and one == other


@contextmanager
def each_its_own(model: Any, names: Sequence[str], windows: Sequence[Any]) -> Iterator[None]:
    """Call each block with its own arguments instead of the first block's, during the block."""
    own = recorded(model, names, windows)
    blocks = {name: model.get_submodule(name) for name in own}
    hooks = [block.register_forward_pre_hook(_renamed, with_kwargs=True) for block in blocks.values()]
    for name, block in blocks.items():
        block.forward = _with(block.forward, own[name])
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for block in blocks.values():
            block.__dict__.pop("forward", None)


@contextmanager
def loss_of_streams() -> Iterator[None]:
    """Let auto-round compare outputs (batch, tokens, streams, width), as DeepSeek V4's blocks have: it masks
    the last token of outputs (batch, tokens, width) alone."""
    from auto_round.algorithms.quantization.sign_round.quantizer import SignRoundQuantizer

    kind: Any = SignRoundQuantizer
    loss = kind._get_loss

    def flat(quantizer: Any, predicted: Any, exact: Any, *given: Any, **named: Any) -> Any:
        return loss(quantizer, predicted.flatten(2), exact.flatten(2), *given, **named)

    kind._get_loss = flat
    try:
        yield
    finally:
        kind._get_loss = loss


def _renamed(_: Any, given: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return given, {_ALIAS if key == _IDS else key: value for key, value in named.items()}


def _with(forward: Any, arguments: dict[str, Any]) -> Any:
    """A block's function with arguments of its own, under the same signature."""

    @functools.wraps(forward)
    def called(*given: Any, **named: Any) -> Any:
        if _ALIAS in named:
            named[_IDS] = named.pop(_ALIAS)
        windows = (given[0] if given else named["hidden_states"]).shape[0]
        return forward(
            *given, **(named | {key: _for_all(value, windows) for key, value in arguments.items()})
        )

    return called


def _for_all(value: Any, windows: int) -> Any:
    """An argument of one window for several at once."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.expand(windows, *value.shape[1:]) if value.ndim > 1 and value.shape[0] == 1 else value
    if isinstance(value, dict):
        return {key: _for_all(part, windows) for key, part in value.items()}
    return (
        type(value)(_for_all(part, windows) for part in value) if isinstance(value, list | tuple) else value
    )
