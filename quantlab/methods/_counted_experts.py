"""Count the calibration tokens that each expert is sent while a library quantizes the model.

Libraries put classes of their own in the place of a model's mixtures, and run each block hundreds of times.
Every module that has a module called `experts` is watched, whoever made it, and counted is the first time
that the calibration text passes it, before its block is changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from quantlab.architecture.fields import Experts
from quantlab.engines._transformers.experts import Mixture, block_of
from quantlab.records import ExpertTokens

if TYPE_CHECKING:
    import torch


class _Counted(NamedTuple):
    mixture: Mixture
    parts: list[torch.Tensor]
    """Chosen experts (tokens, per token), a part for each call."""

    @property
    def tokens(self) -> int:
        return sum(map(len, self.parts))


class CountedExperts:
    """Counts during a `with` block."""

    def __init__(self, sizes: Experts, calibration_tokens: int) -> None:
        self._sizes, self._tokens = sizes, calibration_tokens
        self._counted: dict[Any, _Counted] = {}
        """By the mixture's module."""
        self._experts: dict[Any, Mixture] = {}
        """By the module of experts."""
        self._hooks: list[Any] = []

    def __enter__(self) -> CountedExperts:
        from torch.nn.modules import module as torch_modules

        if self._sizes.routed:
            self._hooks = [
                torch_modules.register_module_forward_pre_hook(self._before),
                torch_modules.register_module_forward_hook(self._after, always_call=True),
            ]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _before(self, module: Any, inputs: Any) -> None:
        if module in self._experts:
            self._experts[module].called(*inputs)
        if "experts" not in module._modules:
            return
        counted = self._counted.setdefault(module, _Counted(Mixture(self._sizes.per_token), []))
        if counted.tokens < self._tokens:
            self._experts[module.experts] = counted.mixture
            counted.mixture.begin()

    def _after(self, module: Any, _inputs: Any, _output: Any) -> None:
        counted = self._counted.get(module)
        if counted is None or not counted.mixture.is_open:
            return
        del self._experts[module.experts]
        chosen = counted.mixture.end()
        if chosen is not None:
            counted.parts.append(chosen)

    def tokens_of(self, model: Any, few_are: str) -> ExpertTokens | None:
        """The tokens by block of the quantized model; None without experts, or where a mixture does not tell
        what it chose for each token. `few_are` says what the library does with experts that saw few."""
        import torch

        by_block = {}
        for name, module in model.named_modules():
            if "experts" in module._modules and self._sizes.routed:
                counted = self._counted.get(module)
                if counted is None or counted.tokens != self._tokens:
                    return None
                chosen = torch.cat(counted.parts).flatten()
                by_block[block_of(name)] = tuple(
                    torch.bincount(chosen, minlength=self._sizes.routed).tolist()
                )
        if not by_block:
            return None
        return ExpertTokens(calibration_tokens=self._tokens, by_block=by_block, few_are=few_are)
