"""Run functions in vLLM's workers, beside the model, one call per GPU.

`LLM.collective_rpc` gives a callable the worker. It runs with vLLM 0.32.0 on a CPU; no GPU has run it.
"""

from __future__ import annotations

import collections
from typing import Any, NamedTuple

_SEEN, _NOTED, _NOTING = "quantlab_reads", "quantlab_noted", "quantlab_noting"
_KERNELS = ("kernel", "fp8_linear", "linear_kernel")
"""Where the methods and schemes of vllm/model_executor/layers/quantization keep what multiplies."""


class WorkerState(NamedTuple):
    """One worker's account of its part of the model, in bytes."""

    weights_bytes: int | None
    """Memory that loading the model took on its device (`GPUModelRunner.model_memory_usage`); None where the
    runner does not count it."""
    cache_bytes: int
    """All of the cache that it allocated at the start, used or not."""
    always_bytes: int
    """Weights that every decoding step reads: all but the input embedding (unless it is the head, too) and
    the experts."""
    expert_bytes: int


class Read(NamedTuple):
    """Weights that a decoding step may read, in bytes."""

    always_bytes: int
    expert_bytes: int


def state(worker: Any) -> WorkerState:
    """Memory of a worker, and what a decode reads of it."""
    model, caches = worker.get_model(), worker.model_runner.kv_caches
    counted = getattr(worker.model_runner, "model_memory_usage", None)  # the CPU's runner has none
    weights = None if counted is None else int(counted)
    read = getattr(model, _SEEN, None) or reads(model)
    return WorkerState(weights, _bytes(caches), *read)


def reads(model: Any) -> Read:
    """Bytes of a model's tensors, those that share their storage once."""
    heads = {id(m.weight) for m in model.modules() if type(m).__name__ == "ParallelLMHead"}
    embeddings = {id(m.weight) for m in model.modules() if type(m).__name__ == "VocabParallelEmbedding"}
    always, experts, seen = 0, 0, set[int]()
    for name, tensor in model.named_parameters():
        storage = tensor.untyped_storage()
        if storage.data_ptr() in seen or (id(tensor) in embeddings and id(tensor) not in heads and heads):
            continue
        seen.add(storage.data_ptr())
        if ".experts." in name:
            experts += storage.nbytes()
        else:
            always += storage.nbytes()
    return Read(always, experts)


def watch_loading() -> None:
    """Count a model's tensors when its weights are loaded: on a CPU the kernels then pack them into memory of
    their own, and the tensors are gone."""
    from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

    usual = DefaultModelLoader.load_weights

    def counting(loader: Any, model: Any, *rest: Any, **more: Any) -> Any:
        made = usual(loader, model, *rest, **more)
        setattr(model, _SEEN, reads(model))
        return made

    DefaultModelLoader.load_weights = counting


def kernels(worker: Any) -> dict[str, int]:
    """How many layers there are of each class that multiplies quantized or plain weights, with its kernel."""
    kernels = collections.Counter[str]()
    for module in worker.get_model().modules():
        method = getattr(module, "quant_method", None)
        if method is not None:
            kernels[_name(method, getattr(module, "scheme", None))] += 1
    return dict(kernels)


def _name(method: Any, scheme: Any) -> str:
    """The class that multiplies a layer, with its kernel; compressed-tensors leaves both to the layer's
    scheme."""
    multiplies = method if scheme is None else scheme
    kernel = next((k for name in _KERNELS if (k := getattr(multiplies, name, None)) is not None), None)
    return type(multiplies).__name__ + (f" ({type(kernel).__name__})" if kernel is not None else "")


def _bytes(caches: Any) -> int:
    """Bytes of cache tensors, those that share their storage once; recurrent layers have several in one
    entry."""
    seen: dict[int, int] = {}
    waiting = list(caches)
    while waiting:
        entry = waiting.pop()
        if isinstance(entry, list | tuple):
            waiting.extend(entry)
        elif entry is not None:
            storage = entry.untyped_storage()
            seen[storage.data_ptr()] = storage.nbytes()
    return sum(seen.values())


def threads() -> int:
    """The threads that a CPU computes with."""
    import torch

    return int(torch.get_num_threads())


def watch_logits(worker: Any) -> bool:
    """Note the logits that the model computes from now on; whether it can be watched."""
    model = worker.get_model()
    if not hasattr(model, "compute_logits"):
        return False
    if not hasattr(model, _NOTED):
        usual = model.compute_logits

        def noting(*given: Any, **more: Any) -> Any:
            logits = usual(*given, **more)
            if logits is not None and getattr(model, _NOTING):
                getattr(model, _NOTED).append(logits.detach().float().cpu().numpy().copy())
            return logits

        model.compute_logits = noting
        setattr(model, _NOTED, [])
    setattr(model, _NOTING, True)
    return True


def take_logits(worker: Any) -> list[Any]:
    """The logits that were noted since they were taken last, in the order in which they were computed."""
    model = worker.get_model()
    noted = list(getattr(model, _NOTED, []))
    getattr(model, _NOTED, []).clear()
    return noted


def leave_logits(worker: Any) -> None:
    """Note no more of them."""
    model = worker.get_model()
    if hasattr(model, _NOTED):
        setattr(model, _NOTING, False)
        getattr(model, _NOTED).clear()
