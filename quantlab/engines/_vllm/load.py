"""Load vLLM: choose GPUs and settings, and explain its refusals.

No GPU has run this file. Written against vLLM 0.33.0 (`LLM` and its `EngineArgs`).
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

from quantlab.engines._contract import ANYTHING, Demand
from quantlab.engines._limits import Limits
from quantlab.engines._vllm.reserve import reservations
from quantlab.errors import CellFailure
from quantlab.hardware.device import Places, parse_places, visible_to

INSTALL = "pip install vllm==0.33.0"
"""For an environment of its own: it pins other versions of torch and transformers."""
_HOW = f"{INSTALL} (in an environment of its own, it pins another torch)"


def require_vllm() -> None:
    """Raise CellFailure where vLLM is not installed, without importing it."""
    if importlib.util.find_spec("vllm") is None:
        raise CellFailure("not_installed", f"vLLM is not installed: {_HOW}")


def gpus_only(device: str) -> Places:
    """The GPUs that a device names. Raises CellFailure for a place that vLLM does not run on here."""
    places = parse_places(device)
    if places.cpu or places.disk or not places.gpus:
        raise CellFailure(
            "unsupported", f"vLLM runs on GPUs here, not on {device}: use the transformers engine"
        )
    return places


def load(
    weights: Path,
    tokenizer: Path,
    places: Places,
    trust_remote_code: bool,
    cache: str | None = None,
    dtype: str = "auto",
    demand: Demand = ANYTHING,
) -> Any:
    """vLLM's LLM: one sequence never helps another (no prefix cache), safetensors only, everything in this
    process, and no more reserved than is asked for."""
    if cache not in (None, "fp8"):
        raise CellFailure(
            "unsupported",
            f"vLLM has no {cache} cache here: use fp8, leave it out, or use the transformers engine",
        )
    # The engine's core in a process of its own would hide the workers, and its memory from this process.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    reserved = reservations(weights, places, demand)
    show_only(places.gpus)
    vllm = _imported()
    try:
        return vllm.LLM(
            model=str(weights),
            tokenizer=str(tokenizer),
            trust_remote_code=trust_remote_code,
            tensor_parallel_size=len(places.gpus),
            dtype=dtype,
            load_format="safetensors",
            seed=0,
            max_logprobs=-1,
            enable_prefix_caching=False,
            async_scheduling=False,
            **reserved,
            **({"kv_cache_dtype": cache} if cache else {}),
        )
    except ValueError as error:  # vLLM's word for a method, a model or a size that it does not take
        text = " ".join(str(error).split())[:300]
        raise CellFailure(
            "does_not_fit" if "memory" in text.lower() else "unsupported", f"vLLM: {text}"
        ) from error


def _imported() -> Any:
    """The package vllm. Raises CellFailure where a module is missing."""
    try:
        import vllm
    except ModuleNotFoundError as error:
        missing = (
            "vLLM is not installed"
            if error.name == "vllm"
            else f"vLLM needs the module {error.name}, which is not installed"
        )
        raise CellFailure("not_installed", f"{missing}: {_HOW}") from error
    return vllm


def show_only(gpus: tuple[int, ...]) -> None:
    """Let vLLM see the GPUs that were asked for and no other: it takes the first ones that it sees."""
    visible = [entry for entry in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if entry]
    if gpus != tuple(range(len(gpus))) or visible[len(gpus) :]:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible_to(gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))


def watching_limits(base: Any) -> Any:
    """lm-eval's VLLM class, which then says in `truncated` which answers of its last `generate_until` the
    limit ended."""

    class Watching(base):  # type: ignore[misc]
        def __init__(self, **given: Any) -> None:
            super().__init__(**given)
            self.truncated: list[bool] = []
            self._limits = Limits()

        def _model_generate(self, requests: Any, generate: bool = False, sampling_params: Any = None) -> Any:
            made = super()._model_generate(requests, generate, sampling_params)
            if generate:
                self._limits.made += [output.outputs[0].finish_reason == "length" for output in made]
            return made

        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
            ask = super().generate_until
            texts, self.truncated = self._limits.generate(self, lambda: ask(requests, disable_tqdm), requests)
            return texts

    return Watching
