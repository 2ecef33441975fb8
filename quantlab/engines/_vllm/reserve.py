"""Choose what vLLM reserves as it opens: the longest sequence, and its share of the GPU's memory, or on a CPU
the bytes of its cache.

It runs with vLLM 0.32.0 on a CPU; no GPU has run it. On GPUs it is written against vLLM 0.33.0."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quantlab.architecture.kvcache import cache_bytes
from quantlab.architecture.shape import read_architecture
from quantlab.engines._contract import Demand
from quantlab.errors import QuantlabError
from quantlab.formats.json_file import read_object
from quantlab.hardware.device import Places, gpus
from quantlab.hardware.memory import available_bytes
from quantlab.models.positions import positions_of

SHARE = 0.92
"""Of a GPU's memory that vLLM takes unless told otherwise (`gpu_memory_utilization`,
vllm/entrypoints/llm.py)."""
BYTES_PER_SORTED_LOGPROB = 40
"""Of each token and word while vLLM sorts the log-probabilities of a whole vocabulary: the logit (at most 4),
its log-probability in float32 (4), the sorted values with their indices (12), as much again while they are
sorted, and the indices that it returns (8). Counted in vllm/v1/worker/gpu_model_runner.py and
gpu/sample/logprob.py; not measured."""
_FIT = -1
"""`max_model_len` by which vLLM takes the longest sequence that fits."""
CPU_BLOCK, GPU_BLOCK = 128, 16
"""Tokens of a block of the cache, unless a kernel wants others (vllm/platforms/cpu.py, config/cache.py)."""
_CPU_TOKENS = 4096
"""Of a sequence on a CPU, where nothing is known of what will be asked."""
_CPU_MOST, _CPU_SHARE = 2 * 2**30, 0.25
"""Bytes of a CPU's cache where the model's shape is not known, and the share of the free memory that it takes
at the most. vLLM writes to all of it as it opens, used or not."""


def reservations(weights: Path, places: Places, demand: Demand, dtype: str = "auto") -> dict[str, Any]:
    """Arguments of `LLM` for what will be asked of it.

    vLLM refuses to start where the cache of one sequence of `max_model_len` tokens does not fit, and takes
    the model's whole context unless told otherwise (vllm/v1/core/kv_cache_utils.py)."""
    config = read_object(weights / "config.json") if (weights / "config.json").is_file() else {}
    chosen: dict[str, Any] = {"max_model_len": _longest(config, demand.tokens)}
    if not places.gpus:
        return chosen | {"kv_cache_memory_bytes": _cpu_cache(config, demand, dtype)}
    share = _share(config, places, demand.scored_tokens)
    return chosen | ({} if share is None else {"gpu_memory_utilization": share})


def _cpu_cache(config: dict[str, Any], demand: Demand, dtype: str) -> int:
    """Bytes of cache for the sequences that are demanded, in whole blocks, and one sequence more: vLLM keeps
    a block for itself, and rounds by layers."""
    tokens = demand.tokens or min(positions_of(config) or _CPU_TOKENS, _CPU_TOKENS)
    blocks = -(-tokens // CPU_BLOCK) + 1
    most = int(_CPU_SHARE * available_bytes())
    try:
        shape = read_architecture(config)
        one = cache_bytes(
            shape, blocks * CPU_BLOCK, dtype if dtype == "float32" else "bfloat16", "every_layer_full"
        )
    except QuantlabError:
        return min(_CPU_MOST, most)
    needed = one.total * (demand.sequences + 1)
    return needed if demand.tokens else min(needed, most)


def _longest(config: dict[str, Any], tokens: int | None) -> int:
    """No more than the model's positions: vLLM refuses to start with more."""
    if tokens is None:
        return _FIT
    positions = positions_of(config)
    return min(tokens, positions) if positions else tokens


def _share(config: dict[str, Any], places: Places, scored_tokens: int) -> float | None:
    """vLLM's share of the smallest GPU, less what sorting takes beside it; None for its own default.

    vLLM runs once with a dummy batch to see what it needs, and that batch asks for no log-probabilities: they
    are outside what it reserves."""
    text = config.get("text_config")
    words = (text if isinstance(text, dict) else config).get("vocab_size") or config.get("vocab_size")
    sizes = [gpu.memory_bytes for gpu in gpus() if gpu.index in places.gpus]
    if not scored_tokens or not sizes or not isinstance(words, int):
        return None
    needed = scored_tokens * words * BYTES_PER_SORTED_LOGPROB
    return round(max(SHARE - needed / min(sizes), 0.01), 4)
