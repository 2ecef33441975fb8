"""sensitivity: where a checkpoint's divergence comes from, by swapping one part at a time into the unquantized model.

Quantized layers run as dense layers dequantized once, so that what is swapped is the rounding of the weights and nothing
of a kernel; 8-bit activations (llama.cpp's on a CPU, bitsandbytes' LLM.int8) are not in it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from quantlab.analysis import clustered
from quantlab.analysis.divergence import METRICS_VERSION, window_values
from quantlab.cell import Cell, require_memory
from quantlab.checkpoint import Checkpoint
from quantlab.device import Device
from quantlab.errors import CellFailure
from quantlab.items import Items, key_of
from quantlab.progress import Progress
from quantlab.records import PartLoss, SensitivityRecord
from quantlab.stages.reference import Reference, folder_of
from quantlab.versions import installed

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

REST, WHOLE = "the rest", "the whole"
_REACH = 1e-5
"""Norms of both models that differ by more are scaled (AWQ): their linear layers mean nothing alone."""


def run(cell: Cell, device: Device, progress: Progress, linears: bool = False, windows: int = 8) -> SensitivityRecord:
    """Swap each block, or each linear layer. Raises CellFailure where the checkpoint cannot run as dense layers."""
    import torch

    checkpoint, reference = cell.checkpoint(), Reference(folder_of(cell.root, cell.model))
    source, token_ids = cell.prepared.source(), cell.prepared.token_ids("evaluation")[:windows]
    dtype = getattr(torch, reference.info.dtype)
    size = dtype.itemsize * source.parameters
    require_memory(device, 2 * size, "the unquantized model and the dequantized one")
    began = time.monotonic()
    with progress.step(f"{cell.variant.slug}: loading both models as dense layers"):
        plain = _plain(cell.prepared.weights, dtype, device, source.trust_remote_code)
        swap = Swap(plain, dense_model(checkpoint, dtype, device.places.first), linears)
    done = Items(cell.root, checkpoint.sha256, "sensitivity")
    settings = key_of(METRICS_VERSION, reference.info.model_dump(), linears, device.name, installed(("torch", "transformers")))
    found: list[dict[str, float]] = []
    with progress.step(
        f"{cell.variant.slug}: {len(swap.parts)} parts of {len(token_ids)} windows", len(token_ids) * len(swap.parts)
    ) as step:
        for i, ids in enumerate(token_ids):
            values = done.get(key_of(settings, i)) or {}
            if not values:
                logits = reference.logits(i)
                for part, other in swap.logits(torch.from_numpy(ids)[None].to(device.places.first)):
                    values[part] = float(window_values(logits, other, ids).kl.mean())
                    step.advance()
                done.add({key_of(settings, i): values})
            else:
                step.advance(len(swap.parts))
            found.append(values)
    estimates = {part: clustered.mean(np.array([[values[part]] for values in found])) for part in found[0]}
    return SensitivityRecord(
        model=cell.model,
        variant=cell.variant.slug,
        checkpoint_sha256=checkpoint.sha256,
        engine="transformers",
        device=device.name,
        versions=installed(("torch", "transformers", "numpy")),
        granularity="linear" if linears else "block",
        windows=len(found),
        window_tokens=token_ids.shape[1],
        dtype=reference.info.dtype,
        whole=estimates.pop(WHOLE),
        parts=tuple(PartLoss(part=part, kl_divergence_nats=kl) for part, kl in estimates.items()),
        seconds=time.monotonic() - began,
    )


def dense_model(checkpoint: Checkpoint, dtype: torch.dtype, device: str) -> Any:
    """The checkpoint as a transformers model of dense layers. Raises CellFailure for a format that has no such form."""
    from transformers import AutoModelForCausalLM

    from quantlab.engines._dense import _packing, load_dense
    from quantlab.engines.transformers import quantization_config

    trust = checkpoint.manifest.trust_remote_code
    if checkpoint.manifest.format == "gguf":
        file = checkpoint.gguf()
        try:
            model: Any = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=dtype)
            return model.to(device).eval()
        except ValueError as error:
            raise CellFailure("unsupported", f"transformers does not read this GGUF file: {' '.join(str(error).split())[:200]}") from error
    config = quantization_config(checkpoint.weights)
    if not config:
        return _load(checkpoint.weights, dtype, device, trust).eval()
    if config.get("load_in_4bit") or config.get("load_in_8bit"):
        return _load(checkpoint.weights, dtype, device, trust).dequantize().to(dtype).eval()
    if not _packing(config):
        raise CellFailure("unsupported", f"{config.get('quant_method')} at {config.get('bits')} bits is not read as dense layers")
    return load_dense(checkpoint.weights, config, device, trust).to(dtype).eval()


def _load(weights: Path, dtype: torch.dtype, device: str, trust_remote_code: bool) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        weights, dtype=dtype, device_map={"": device}, trust_remote_code=trust_remote_code, use_safetensors=True
    )


def _plain(weights: Path, dtype: torch.dtype, device: Device, trust_remote_code: bool) -> Any:
    return _load(weights, dtype, device.places.first, trust_remote_code).eval()


class Swap:
    """The unquantized model, into which parts of another are put and taken out again."""

    def __init__(self, plain: Any, other: Any, linears: bool) -> None:
        from torch import nn

        self._plain, self._other = plain, other
        self._ours, self._theirs = _blocks(plain), _blocks(other)
        names: list[list[str]] = [[""] for _ in self._ours]
        if linears:
            self._require_plain_norms()
            names = [[name for name, module in block.named_modules() if isinstance(module, nn.Linear)] for block in self._ours]
        self._names = names
        self.parts = [self._part(i, name) for i, inside in enumerate(names) for name in inside] + [REST, WHOLE]

    def _part(self, block: int, name: str) -> str:
        return f"block {block}" + (f" {name}" if name else "")

    def logits(self, ids: torch.Tensor) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Each part's name and the logits (length, vocabulary) with that part alone swapped, on one window (1, length)."""
        import torch

        with torch.inference_mode():
            before = self._outputs(ids)
            for i, inside in enumerate(self._names):
                for name in inside:
                    with _Replaced(self._ours, i, name, self._theirs[i]), _Skipped(self._ours, before[:i]):
                        found = self._run(self._plain, ids)
                    yield self._part(i, name), found
            for i, block in enumerate(list(self._theirs)):
                self._theirs[i] = self._ours[i]
                self._ours[i] = block
            yield REST, self._run(self._other, ids)  # the other model, with every block of the unquantized one
            for i, block in enumerate(list(self._theirs)):
                self._theirs[i] = self._ours[i]
                self._ours[i] = block
            yield WHOLE, self._run(self._other, ids)

    def _run(self, model: Any, ids: torch.Tensor) -> NDArray[np.float32]:
        found: NDArray[np.float32] = model(input_ids=ids, use_cache=False).logits[0].float().cpu().numpy()
        if not np.isfinite(found).all():
            raise CellFailure("broken_checkpoint", "the logits with a part of the checkpoint are not finite")
        return found

    def _outputs(self, ids: torch.Tensor) -> list[Any]:
        """What each block of the unquantized model gives: what lies before a swapped part is computed once."""
        kept: list[Any] = []
        hooks = [block.register_forward_hook(lambda _module, _inputs, output: kept.append(output)) for block in self._ours]
        self._plain(input_ids=ids, use_cache=False)
        for hook in hooks:
            hook.remove()
        return kept

    def _require_plain_norms(self) -> None:
        from torch import nn

        for ours, theirs in zip(self._ours, self._theirs, strict=True):
            inside = {f"{name}." for name, module in ours.named_modules() if isinstance(module, nn.Linear)}
            other = theirs.state_dict()
            for name, tensor in ours.state_dict().items():
                if not name.startswith(tuple(inside)) and float((tensor - other[name]).abs().max()) > _REACH * float(tensor.abs().max()):
                    raise CellFailure(
                        "unsupported",
                        "this method moves scales between the layers of a block (its norms differ), so that a linear layer "
                        "means nothing alone: ask for blocks",
                    )


def _blocks(model: Any) -> Any:
    from torch import nn

    layers = model.config.get_text_config().num_hidden_layers
    found = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == layers]
    if not found:
        raise CellFailure("unsupported", "this architecture has no list of blocks")
    return found[0]


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
