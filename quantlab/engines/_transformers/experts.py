"""Note to which experts a transformers model sends each token, by hooks on its mixtures.

A mixture is the module that has a module called `experts`. What is read is the router's choice itself, after
groups, hash tables and biases: the indices that the experts are called with, else the last top-k that is
taken inside the mixture (Llama 4, and classes of libraries that hold experts one by one)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from quantlab.architecture.fields import Experts, experts_of
from quantlab.engines._contract import Chosen
from quantlab.models.wrappers import parts_of

if TYPE_CHECKING:
    import torch

_NUMBER = re.compile(r"\.(\d+)(?=\.)")


class Mixture:
    """Reads what one mixture chooses in one call, between `begin` and `end`."""

    def __init__(self, per_token: int) -> None:
        import torch
        from torch.overrides import TorchFunctionMode

        by_top_k: list[Any] = []

        class Mode(TorchFunctionMode):
            def __torch_function__(self, called: Any, _: Any, positional: Any = (), named: Any = None) -> Any:
                result = called(*positional, **(named or {}))
                if called in (torch.topk, torch.Tensor.topk):
                    by_top_k.insert(0, result[1])
                return result

        self._per_token, self._mode, self.is_open = per_token, Mode(), False
        self._by_argument: list[Any] = []
        self._by_top_k = by_top_k

    def begin(self) -> None:
        """The mixture is called."""
        self._by_argument.clear()
        self._by_top_k.clear()
        self._mode.__enter__()
        self.is_open = True

    def called(self, *values: Any) -> None:
        """Its experts are called with these values."""
        self._by_argument += values

    def end(self) -> torch.Tensor | None:
        """It has returned; the chosen experts (tokens, per token), None where they cannot be read."""
        import torch

        if self.is_open:  # not where another hook before `begin` raised
            self._mode.__exit__(None, None, None)
        self.is_open = False
        values = (*self._by_argument, *self._by_top_k)
        tables = (v for v in values if isinstance(v, torch.Tensor) and v.ndim == 2)
        whole = (v for v in tables if v.dtype in (torch.int32, torch.int64))
        chosen = next((v for v in whole if v.shape[1] == self._per_token), None)
        return None if chosen is None else chosen.detach().cpu()


class ChosenExperts:
    """The choices of a model's mixtures since it was last asked for them."""

    def __init__(self, model: Any) -> None:
        self.sizes: Experts = experts_of(model.config.get_text_config(decoder=True))
        self._seen: dict[int, list[torch.Tensor | None]] = {}
        self._hooks = [hook for name in _mixtures(model) for hook in self._watch(model, name)]

    def take(self, tokens: int) -> Chosen:
        """Of so many tokens, all since the last call, in their order; what was seen is forgotten."""
        import torch

        seen, self._seen = self._seen, {block: [] for block in self._seen}
        if not self.sizes.routed:
            return Chosen()
        if not seen:
            return Chosen(reason="the model's class has no module of experts to watch")
        by_block = {}
        for block, parts in sorted(seen.items()):
            known = [part for part in parts if part is not None]
            if not known or len(known) < len(parts) or sum(map(len, known)) != tokens:
                return Chosen(
                    reason=f"the router of block {block} does not tell which {self.sizes.per_token} experts"
                    " it chose for each token"
                )
            by_block[block] = torch.cat(known).numpy()
        return Chosen(by_block)

    def remove(self) -> None:
        """Watch no longer."""
        for hook in self._hooks:
            hook.remove()

    def _watch(self, model: Any, name: str) -> Iterator[Any]:
        module, mixture, block = model.get_submodule(name), Mixture(self.sizes.per_token), block_of(name)
        self._seen[block] = []

        def called(_module: Any, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
            mixture.called(*positional, *named.values())

        yield module.experts.register_forward_pre_hook(called, with_kwargs=True)
        yield module.register_forward_pre_hook(lambda *_: mixture.begin())
        yield module.register_forward_hook(
            lambda *_: self._seen[block].append(mixture.end()), always_call=True
        )


def block_of(name: str) -> int:
    """The number of the block that a module of this name stands in; 0 where no number is in it."""
    numbers = _NUMBER.findall(f".{name}.")
    return int(numbers[0]) if numbers else 0


def _mixtures(model: Any) -> list[str]:
    """Names of the modules with experts, but for those of towers."""
    towers = tuple(f"{name}." for name in parts_of(model).towers)
    named = (name for name, _ in model.named_modules() if name.rpartition(".")[2] == "experts")
    return [name.rpartition(".")[0] for name in named if not name.startswith(towers)]


@contextmanager
def watched(model: Any) -> Iterator[ChosenExperts]:
    """A model's choices during the block."""
    chosen = ChosenExperts(model)
    try:
        yield chosen
    finally:
        chosen.remove()
