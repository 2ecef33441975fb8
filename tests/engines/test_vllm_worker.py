"""What a worker says of its model: bytes by kind, on modules with vLLM's class names."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from quantlab.apart import vllm_inside as _vllm_worker


class VocabParallelEmbedding(nn.Embedding):
    """vLLM's input embedding."""


class ParallelLMHead(nn.Linear):
    """vLLM's head; tied, it has the embedding's weight."""


class Marlin:
    """A kernel."""


class AutoGPTQLinearMethod:
    """What multiplies a quantized layer."""

    kernel = Marlin()


class Layer(nn.Linear):
    """A linear layer that vLLM made."""

    quant_method = AutoGPTQLinearMethod()


def _worker(tied: bool) -> SimpleNamespace:
    model = nn.ModuleDict(
        {
            "embed": VocabParallelEmbedding(100, 8),
            "up": Layer(8, 8, bias=False),
            "head": ParallelLMHead(8, 100, bias=False),
        }
    )
    model["experts"] = nn.ModuleDict({"experts": nn.ModuleDict({"w": nn.Linear(8, 16, bias=False)})})
    if tied:
        model["head"].weight = model["embed"].weight
    cache = torch.zeros(4, 10)
    runner = SimpleNamespace(kv_caches=[cache, cache.view(2, 20), [torch.zeros(3)]], model_memory_usage=12345)
    return SimpleNamespace(get_model=lambda: model, model_runner=runner)


@pytest.mark.parametrize("tied", [False, True])
def test_a_step_reads_all_but_the_input_embedding(tied: bool) -> None:
    state = _vllm_worker.state(_worker(tied))
    assert state.weights_bytes == 12345
    assert state.cache_bytes == 4 * 40 + 4 * 3
    assert state.always_bytes == 4 * (8 * 8 + 100 * 8)  # the layer, and the head, tied or not
    assert state.expert_bytes == 4 * 8 * 16


def test_the_kernel_that_multiplies_is_named() -> None:
    assert _vllm_worker.kernels(_worker(False)) == {"AutoGPTQLinearMethod (Marlin)": 1}


def test_a_runner_that_does_not_count_its_weights_says_so_instead_of_failing() -> None:
    worker = _worker(False)
    del worker.model_runner.model_memory_usage
    state = _vllm_worker.state(worker)
    assert state.weights_bytes is None and state.always_bytes == 4 * (8 * 8 + 100 * 8)


class CompressedTensorsLinearMethod:
    """vLLM's method for compressed-tensors: the layer's scheme multiplies."""


class CompressedTensorsWNA16:
    """A scheme that keeps its kernel."""

    kernel = Marlin()


class CompressedTensorsW8A8Fp8:
    """A scheme that keeps it under another name."""

    fp8_linear = Marlin()


class CompressedTensorsW4A4Bare:
    """A scheme without a kernel of its own."""


@pytest.mark.parametrize(
    ("scheme", "said"),
    [
        (CompressedTensorsWNA16(), "CompressedTensorsWNA16 (Marlin)"),
        (CompressedTensorsW8A8Fp8(), "CompressedTensorsW8A8Fp8 (Marlin)"),
        (CompressedTensorsW4A4Bare(), "CompressedTensorsW4A4Bare"),
    ],
)
def test_the_kernel_of_a_compressed_tensors_layer_is_its_schemes(scheme: object, said: str) -> None:
    worker = _worker(False)
    layer = worker.get_model()["up"]
    layer.quant_method, layer.scheme = CompressedTensorsLinearMethod(), scheme
    assert _vllm_worker.kernels(worker) == {said: 1}
