"""Run safetensors checkpoints with vLLM, in an environment of its own, on a CPU or on NVIDIA GPUs.

vLLM pins other versions of torch and transformers than quantlab is tested with: `quantlab install vllm` makes
it an environment, and its engine runs there, in a worker process (`quantlab/environments/worker.py`,
`quantlab/apart/vllm_engine.py`). With vLLM 0.32.0 on a CPU the tests run unquantized, GPTQ, AWQ and
compressed-tensors checkpoints. **No GPU has run it**: there it is written against vLLM 0.33.0, with tensor
parallelism over several. What vLLM refuses is recorded with its own words.

It is never chosen by itself: `engines.engine_for` gives it where it is asked for by name. What is reserved is
the longest sequence that the job needs (`_vllm/reserve.py`)."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from quantlab.engines._contract import (
    ANYTHING,
    Demand,
    Engine,
    Resident,
    Served,
    ServeTarget,
    WorkerPlace,
)
from quantlab.engines._vllm import load
from quantlab.engines._vllm.engine import VllmEngine
from quantlab.engines._vllm.reserve import CPU_BLOCK, GPU_BLOCK
from quantlab.environments import locked
from quantlab.environments.versions import installed
from quantlab.environments.worker import WorkerProcess
from quantlab.errors import CellFailure
from quantlab.formats import SAFETENSORS
from quantlab.hardware.device import gpus, parse_places, visible_to

if TYPE_CHECKING:
    from quantlab.workspace.checkpoint import Checkpoint


class Vllm(Engine):
    """vLLM."""

    name = "vllm"
    title = "vLLM"
    summary = "safetensors checkpoints through vLLM, only where it is asked for (no GPU has run it yet)"
    formats = (SAFETENSORS,)
    requires = ("vllm",)
    install = load.INSTALL
    apart = True
    reserves_gpu = True
    serves_releases = True
    by_layers_note = (
        "vLLM can split it by layers alone (--pipeline-parallel-size), and its GPUs then work in turn"
    )
    cache_policy = "transformers"

    def __init__(self) -> None:
        self._waiting: WorkerProcess | None = None
        """A worker that has imported vLLM and holds nothing yet."""

    def lacks(self) -> tuple[str, ...]:
        """vLLM, where neither this environment nor the one for this machine has it."""
        try:
            load.interpreter(parse_places("cuda:0" if gpus() else "cpu"))
        except CellFailure:
            return self.requires
        return ()

    def versions(self, device: str | None = None) -> dict[str, str]:
        """vLLM's, and those of torch and transformers beside it; without a device those of every environment
        that could run it."""
        if device is not None:
            with contextlib.suppress(CellFailure):
                return load.interpreter(load.places_of(device)).versions
            return {}
        found = installed(self.requires)
        for name in (locked.suited(self.name, gpu).name for gpu in (True, False)):
            found |= {key: value for key, value in locked.load(name).versions().items() if key == name}
        return found

    def cached_tokens(self, tokens: int, device: str) -> int:
        """Whole blocks."""
        block = GPU_BLOCK if parse_places(device).gpus else CPU_BLOCK
        return -(-tokens // block) * block

    def imports(self, checkpoint: Checkpoint) -> tuple[str, ...]:
        """Nothing, in this process."""
        return ()

    def open_device(self, gpus: Sequence[str]) -> Resident:
        """Start a worker and let it import vLLM. Raises CellFailure where it is not installed."""
        places = parse_places("cuda:" + ",".join(gpu.partition(":")[2] for gpu in gpus) if gpus else "cpu")
        self._waiting = self._waiting or load.begin(places)
        return Resident(*self._waiting.resident())

    def open_checkpoint(
        self,
        checkpoint: Checkpoint,
        device: str,
        dense: bool = False,
        float32: bool = False,
        demand: Demand = ANYTHING,
    ) -> VllmEngine:
        """Load a checkpoint; `dense` means nothing here, `float32` only to plain layers. Raises CellFailure
        where it cannot run."""
        from quantlab.formats.quantization import quantization_config

        checkpoint.require_weights()
        manifest, places = checkpoint.manifest, load.places_of(device)
        dtype = "float32" if float32 and not quantization_config(checkpoint.weights) else "auto"
        trust, cache = manifest.trust_remote_code, manifest.settings.get("cache")
        arguments = load.arguments(
            checkpoint.weights, checkpoint.tokenizer, places, trust, cache, dtype, demand
        )
        worker, self._waiting = self._waiting or load.begin(places), None
        try:
            return VllmEngine(worker, arguments, places, device, trust)
        except BaseException:  # an interrupt, too: no worker outlives it
            worker.close()
            raise

    def place(self, device: str, environment: Mapping[str, str]) -> WorkerPlace:
        """vLLM takes the first GPUs that it sees, so it sees no others."""
        gpus = parse_places(device).gpus
        if not gpus or device != "cuda:" + ",".join(map(str, gpus)):
            return WorkerPlace(dict(environment), device)
        seen = {"CUDA_VISIBLE_DEVICES": visible_to(gpus, environment.get("CUDA_VISIBLE_DEVICES"))}
        return WorkerPlace(dict(environment) | seen, "cuda:" + ",".join(map(str, range(len(gpus)))))

    def serve(self, target: ServeTarget) -> Served:
        """Give the command of `vllm serve`."""
        size = max(target.gpus, 1)
        split = "--pipeline-parallel-size" if target.not_parallel and size > 1 else "--tensor-parallel-size"
        words = ["vllm", "serve", target.path, *target.flags, split, str(size)]
        words += ["--max-model-len", str(target.context_tokens), "--served-model-name", target.name]
        notes = (f"{target.not_parallel}: {self.by_layers_note}",) if target.not_parallel and size > 1 else ()
        return Served(shlex.join(words), notes=notes)


ENGINE = Vllm()
