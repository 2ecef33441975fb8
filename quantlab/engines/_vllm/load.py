"""Choose where vLLM runs and with which settings: its interpreter, its environment, the arguments of `LLM`.

It runs with vLLM 0.32.0 on a CPU; no GPU has run it. On GPUs it is written against vLLM 0.33.0."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

from quantlab.engines._contract import Demand
from quantlab.engines._vllm.reserve import reservations
from quantlab.environments import locked
from quantlab.environments.versions import installed
from quantlab.environments.worker import WorkerProcess
from quantlab.errors import CellFailure
from quantlab.hardware.device import Places, gpus, parse_places, visible_to
from quantlab.processors import THREADS, cores

DISTRIBUTION = "vllm"
INSTALL = "quantlab install vllm"
_COMMANDS = "quantlab.apart.vllm_engine"
_DECIDING = ("torch", "transformers")
"""Distributions beside vLLM's own whose versions decide its figures."""


class Interpreter(NamedTuple):
    """Where vLLM is installed."""

    python: Path
    versions: dict[str, str]


def interpreter(places: Places) -> Interpreter:
    """This process's own where vLLM stands beside quantlab, else that of its environment. Raises CellFailure
    where there is none."""
    own = installed((DISTRIBUTION, *_DECIDING))
    if DISTRIBUTION in own:
        return Interpreter(Path(sys.executable), own)
    environment = locked.suited(DISTRIBUTION, bool(places.gpus))
    have = environment.versions()
    if not have:
        which = " --cpu" if gpus() and not places.gpus else ""
        raise CellFailure("not_installed", f"vLLM is not installed: {INSTALL}{which}")
    return Interpreter(
        environment.python,
        {name: have[name] for name in (environment.name, *_DECIDING) if name in have},
    )


def places_of(device: str) -> Places:
    """The GPUs that a device names, or the CPU. Raises CellFailure for a mixture, and for a disk."""
    places = parse_places(device)
    if places.disk or (places.cpu and places.gpus):
        raise CellFailure(
            "unsupported", f"vLLM runs on GPUs or on a CPU, not on {device}: use the transformers engine"
        )
    return places


def begin(places: Places) -> WorkerProcess:
    """A worker that has imported vLLM. Raises CellFailure where it is not installed or does not import."""
    worker = WorkerProcess("vLLM", interpreter(places).python, _COMMANDS, environment(places))
    worker.ask("load_library", cpu=not places.gpus)
    return worker


def environment(places: Places) -> dict[str, str]:
    """This process's, with what keeps vLLM's engine in one process, where its steps can be counted, and with
    the GPUs that were asked for and no others: vLLM takes the first ones that it sees."""
    chosen = dict(os.environ) | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    chosen.setdefault("VLLM_NO_USAGE_STATS", "1")
    visible = [entry for entry in chosen.get("CUDA_VISIBLE_DEVICES", "").split(",") if entry]
    if not places.gpus:
        chosen.setdefault(THREADS, str(cores()))
    elif places.gpus != tuple(range(len(places.gpus))) or visible[len(places.gpus) :]:
        chosen["CUDA_VISIBLE_DEVICES"] = visible_to(places.gpus, chosen.get("CUDA_VISIBLE_DEVICES"))
    return chosen


def arguments(
    weights: Path,
    tokenizer: Path,
    places: Places,
    trust_remote_code: bool,
    cache: str | None,
    dtype: str,
    demand: Demand,
) -> dict[str, Any]:
    """Of `vllm.LLM`: one sequence never helps another (no prefix cache), safetensors only, and no more
    reserved than is asked for. Raises CellFailure for a cache that vLLM does not have."""
    if cache not in (None, "fp8"):
        raise CellFailure(
            "unsupported",
            f"vLLM has no {cache} cache here: use fp8, leave it out, or use the transformers engine",
        )
    return {
        "model": str(weights),
        "tokenizer": str(tokenizer),
        "trust_remote_code": trust_remote_code,
        "tensor_parallel_size": max(len(places.gpus), 1),
        "dtype": dtype,
        "load_format": "safetensors",
        "seed": 0,
        "max_logprobs": -1,
        "enable_prefix_caching": False,
        "async_scheduling": False,
        # on a CPU it would be compiled by a C++ compiler for minutes, for each checkpoint
        **({} if places.gpus else {"enforce_eager": True}),
        **reservations(weights, places, demand, dtype),
        **({"kv_cache_dtype": cache} if cache else {}),
    }
