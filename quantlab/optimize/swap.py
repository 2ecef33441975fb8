"""Swap parts of one model into another and back: blocks, linear layers, fused experts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from quantlab.errors import CellFailure

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

NOTHING, REST, WHOLE = "nothing", "the rest", "the whole"
_REACH = 1e-5
"""Tensors of both models that differ by more are not the same: norms that AWQ scaled, say."""


class Swap:
    """The unquantized model, into which parts of another are put and taken out again."""

    def __init__(self, plain: Any, other: Any, linears: bool) -> None:
        self._plain, self._other = plain, other
        self._blocks, self._other_blocks = _blocks(plain), _blocks(other)
        names: list[list[str]] = [[""] for _ in self._blocks]
        if linears:
            names = [_matrices(block) for block in self._blocks]
            self._require_nothing_else_differs(names)
        self._names = names
        self.parts = [self._part(i, name) for i, inside in enumerate(names) for name in inside] + [
            REST,
            WHOLE,
        ]

    def _part(self, block: int, name: str) -> str:
        return f"block {block}" + (f" {name}" if name else "")

    def logits(self, ids: torch.Tensor) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Each part's name and the logits (length, vocabulary) with that part alone swapped, on one window
        (1, length).

        The first are those of the unquantized model with nothing swapped.
        """
        import torch

        with torch.inference_mode():
            before, nothing = self._outputs(ids)
            yield NOTHING, nothing
            for i, inside in enumerate(self._names):
                for name in inside:
                    with (
                        _Replaced(self._blocks, i, name, self._other_blocks[i]),
                        _Skipped(self._blocks, before[:i]),
                    ):
                        computed = self._run(self._plain, ids)
                    yield self._part(i, name), computed
            for i, block in enumerate(list(self._other_blocks)):
                self._other_blocks[i] = self._blocks[i]
                self._blocks[i] = block
            yield (
                REST,
                self._run(self._other, ids),
            )  # the other model, with every block of the unquantized one
            for i, block in enumerate(list(self._other_blocks)):
                self._other_blocks[i] = self._blocks[i]
                self._blocks[i] = block
            yield WHOLE, self._run(self._other, ids)

    def _run(self, model: Any, ids: torch.Tensor) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = model(input_ids=ids, use_cache=False).logits[0].float().cpu().numpy()
        return logits

    def _outputs(self, ids: torch.Tensor) -> tuple[list[Any], NDArray[np.float32]]:
        """What each block of the unquantized model gives, and its logits: what lies before a swapped part is
        computed once."""
        kept: list[Any] = []
        hooks = [
            block.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
            for block in self._blocks
        ]
        logits = self._run(self._plain, ids)
        for hook in hooks:
            hook.remove()
        return kept, logits

    def _require_nothing_else_differs(self, names: list[list[str]]) -> None:
        """Raise CellFailure where a tensor of a block differs that no part holds: the parts would not be the
        whole."""
        for i, (block, other_block) in enumerate(zip(self._blocks, self._other_blocks, strict=True)):
            others, inside = other_block.state_dict(), tuple(f"{name}." for name in names[i])
            for name, tensor in block.state_dict().items():
                if name.startswith(inside) or _alike(tensor, others.get(name)):
                    continue
                if tensor.ndim <= 1:
                    raise CellFailure(
                        "unsupported",
                        f"this method moves scales between the layers of a block ({name} of block {i}"
                        " differs), so that a linear layer means nothing alone: ask for blocks",
                    )
                raise CellFailure(
                    "unsupported",
                    f"{name} of block {i} is quantized and is neither a linear layer nor a matrix of experts,"
                    " so that the parts would not be the whole: ask for blocks",
                )


def _alike(tensor: torch.Tensor, other: torch.Tensor | None) -> bool:
    if other is None or other.shape != tensor.shape:
        return False
    return float((tensor.float() - other.float()).abs().max()) <= _REACH * float(tensor.float().abs().max())


def _matrices(block: Any) -> list[str]:
    """Names of a block's linear layers; the fused experts of a mixture (matrices in one tensor) are one
    part."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    linears = []
    for name, module in block.named_modules():
        experts = any(p.ndim == 3 for p in module.parameters(recurse=False)) and not isinstance(
            module, nn.Conv1d
        )
        if isinstance(module, nn.Linear | Conv1D) or experts:
            linears.append(name)
    return linears


def _blocks(model: Any) -> Any:
    from torch import nn

    layers = model.config.get_text_config().num_hidden_layers
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == layers]
    if not lists:
        raise CellFailure("unsupported", "this architecture has no list of blocks")
    return lists[0]


class _Replaced:
    """A block, or one linear layer of it, replaced by another's while the block of code runs."""

    def __init__(self, blocks: Any, index: int, name: str, other: Any) -> None:
        self._blocks, self._index, self._name = blocks, index, name
        self._new = other.get_submodule(name) if name else other

    def __enter__(self) -> None:
        block = self._blocks[self._index]
        self._old = block.get_submodule(self._name) if self._name else block
        self._put(self._new)

    def __exit__(self, *_: object) -> None:
        self._put(self._old)

    def _put(self, module: Any) -> None:
        if self._name:
            self._blocks[self._index].set_submodule(self._name, module)
        else:
            self._blocks[self._index] = module


class _Skipped:
    """The first blocks give what they gave before instead of computing it."""

    def __init__(self, blocks: Any, outputs: list[Any]) -> None:
        self._blocks, self._outputs = blocks, outputs

    def __enter__(self) -> None:
        for block, output in zip(self._blocks, self._outputs, strict=False):
            block.forward = lambda *_args, _output=output, **_options: _output

    def __exit__(self, *_: object) -> None:
        for block, _ in zip(self._blocks, self._outputs, strict=False):
            del block.forward
