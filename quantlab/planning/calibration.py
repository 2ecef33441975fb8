"""Read the constants of a plan that no formula gives; calibration.yaml names the measurements behind them."""

from __future__ import annotations

import functools
from pathlib import Path

from quantlab.frozen import Frozen
from quantlab.parsing import read_yaml

FILE = Path(__file__).with_name("calibration.yaml")
EngineName = str


class Activation(Frozen):
    """Memory of a forward pass."""

    prefill_tokens: int
    """Most tokens that an engine prefills at once."""
    bytes_per_element: int
    intermediate_tensors: int
    hidden_tensors: int
    delta_net_bytes_per_value_channel: float
    delta_net_bytes_per_hidden_channel: float
    logits_bytes_per_entry: int
    source: str


class LlamaCppOverhead(Frozen):
    """What llama.cpp holds on a GPU beside weights and cache."""

    prefill_tokens: int
    """n_ubatch."""
    bytes_per_element: int
    mask_bytes_per_entry: int
    """Per token of the context and token in flight."""
    overhead_gib: tuple[float, float]
    """Lowest and highest; an assumption."""
    source: str


class GpuOverhead(Frozen):
    """What a GPU holds beside weights, cache and activations."""

    overhead_gib: tuple[float, float]
    """Lowest and highest."""
    vllm_share: float
    """Of a GPU's memory that vLLM takes unless told otherwise (gpu_memory_utilization)."""
    known_misses: dict[str, str]
    """By model type: a fit that turned out wrong."""
    source: str


class Tokenizer(Frozen):
    """What a tokenizer takes in a checkpoint, per entry of the vocabulary."""

    json_bytes_per_entry: float
    gguf_bytes_per_entry: float
    source: str


class CpuOverhead(Frozen):
    """What a process on a CPU holds beside weights and cache, its activations included."""

    overhead_bytes: dict[EngineName, tuple[int, int]]
    """Lowest and highest."""
    empty_process_bytes: dict[EngineName, int]
    source: str


class Calibration(Frozen):
    """All of calibration.yaml."""

    activation: Activation
    llama_cpp: LlamaCppOverhead
    gpu: GpuOverhead
    tokenizer: Tokenizer
    cpu: CpuOverhead


@functools.cache
def calibration() -> Calibration:
    """What ships with quantlab."""
    return Calibration.model_validate(read_yaml(FILE))
