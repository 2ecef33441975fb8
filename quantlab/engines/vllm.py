"""Run safetensors checkpoints with vLLM on NVIDIA GPUs, in process, with tensor parallelism.

**No GPU has run this file.** It is written against the interface of vLLM 0.33.0 (`LLM`, `SamplingParams`,
`LLMEngine`), and its tests run it over a module that records what it is asked. On a CPU vLLM 0.32 loaded
GPTQ, AWQ and compressed-tensors checkpoints of quantlab, but no FP8 ones that GPTQModel wrote; 0.33.0 has no
bitsandbytes method (older versions do). What vLLM refuses is recorded with its own words.

It is never chosen by itself: `engines.engine_for` gives it where it is asked for by name. It needs an
environment of its own, because it pins other versions of torch and transformers than quantlab is tested with.

Prefill and decode are vLLM's own steps (`LLMEngine.step`), counted by the tokens that each sequence has: a
prefill ends when every sequence has its first token. Where a batch is more than vLLM schedules in one step,
the first sequences decode while the last ones are still read, and prefill takes that work with it. Logits are
log-probabilities (a constant per position away, which no divergence sees) of the whole vocabulary
(`_vllm/logits.py`). What is reserved is the longest sequence that the job needs (`_vllm/reserve.py`)."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantlab.architecture.fields import experts_of
from quantlab.architecture.roofline import WeightReads
from quantlab.engines._contract import (
    ANYTHING,
    Demand,
    Engine,
    EngineMemory,
    OpenCheckpoint,
    Served,
    ServeTarget,
    WorkerPlace,
    with_float32_softmax,
)
from quantlab.engines._vllm import worker as _vllm_worker
from quantlab.engines._vllm.load import INSTALL as INSTALL
from quantlab.engines._vllm.load import gpus_only, load, require_vllm, watching_limits
from quantlab.engines._vllm.logits import window_logits
from quantlab.errors import CellFailure
from quantlab.formats import SAFETENSORS
from quantlab.hardware.device import parse_places, visible_to

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from quantlab.workspace.checkpoint import Checkpoint

_FIRST_NAME = 10**9
"""vLLM reads the names of requests as numbers, and counts its own from 0."""


class VllmEngine(OpenCheckpoint):
    """See `quantlab.engines.OpenCheckpoint`."""

    name = "vllm"
    dense = False
    threads = None

    def __init__(
        self,
        weights: Path,
        tokenizer: Path,
        device: str,
        trust_remote_code: bool = False,
        cache: str | None = None,
        dtype: str = "auto",
        demand: Demand = ANYTHING,
    ) -> None:
        places = gpus_only(device)
        self.parallel = len(places.gpus)
        """GPUs that read their part of the weights at the same time."""
        self.device = f"{len(places.gpus)} GPU of {device}" if len(places.gpus) > 1 else device
        self._weights, self._tokenizer, self._trust = weights, tokenizer, trust_remote_code
        self._llm = load(weights, tokenizer, places, trust_remote_code, cache, dtype, demand)
        config = self._llm.llm_engine.vllm_config
        self._cache = config.cache_config
        self.dtype = str(config.model_config.dtype).removeprefix("torch.")
        self.scored_in = with_float32_softmax(self.dtype)
        self.cache_dtype = self.dtype if self._cache.cache_dtype == "auto" else str(self._cache.cache_dtype)
        self._context = int(config.model_config.max_model_len)
        self.context_tokens: int | None = self._context
        self._vocabulary = int(config.model_config.get_vocab_size())
        self.kernel = _named(self._llm.collective_rpc(_vllm_worker.kernels))
        self._tokens: dict[str, int] = {}
        self._prompt_tokens, self._requests = 0, 0

    def logits(self, token_ids: NDArray[np.int64], first: int = 0) -> NDArray[np.float32]:
        self._drop()
        return window_logits(self._llm, token_ids, self._vocabulary, self._context)[first:]

    def language_model(self, batch_size: int) -> Any:
        """lm-eval's own vLLM model, around the engine that is loaded: it makes one from this name
        otherwise."""
        from unittest import mock

        from lm_eval.models import vllm_causallms

        self._drop()
        with mock.patch.object(vllm_causallms, "LLM", lambda **_: self._llm):
            return watching_limits(vllm_causallms.VLLM)(
                pretrained=str(self._weights),
                tokenizer=str(self._tokenizer),
                trust_remote_code=self._trust,
                batch_size=batch_size,
            )

    def prefill(self, token_ids: NDArray[np.int64]) -> None:
        from vllm import SamplingParams

        self._drop()
        self._prompt_tokens = token_ids.shape[1]
        room = self._context - self._prompt_tokens
        if room < 1:
            raise CellFailure(
                "unsupported",
                f"a prompt of {self._prompt_tokens} tokens leaves no room in {self._context}",
            )
        going_on = SamplingParams(temperature=0, max_tokens=room, ignore_eos=True, detokenize=False)
        for ids in token_ids.tolist():
            name, self._requests = str(_FIRST_NAME + self._requests), self._requests + 1
            self._tokens[name] = 0
            self._llm.llm_engine.add_request(name, {"prompt_token_ids": ids}, going_on)
        self._until(dict.fromkeys(self._tokens, 1))

    def generate(self, prompts: Sequence[str], tokens: int) -> list[list[int]]:
        """lm-eval's model reads the prompts: vLLM itself would put a second start token before a chat
        template's."""
        from vllm import SamplingParams

        if tokens >= self._context:
            asked = f"{tokens} tokens of an answer are asked for"
            raise CellFailure("unsupported", f"{asked}, the model's context has {self._context}")
        lm = self.language_model(len(prompts))
        asked_ids = [lm.tok_encode(prompt)[-(self._context - tokens) :] for prompt in prompts]
        made = self._llm.generate(
            [{"prompt_token_ids": ids} for ids in asked_ids],
            SamplingParams(temperature=0, max_tokens=tokens),
            use_tqdm=False,
        )
        return [list(each.outputs[0].token_ids) for each in made]

    def end_ids(self) -> frozenset[int]:
        """The tokens that the model's generation config names, else the tokenizer's."""
        ends = self._llm.llm_engine.vllm_config.model_config.try_get_generation_config().get("eos_token_id")
        ends = self._llm.get_tokenizer().eos_token_id if ends is None else ends
        return frozenset(ends if isinstance(ends, list) else [ends])

    def decode(self, tokens: int) -> None:
        self._until({name: made + tokens for name, made in self._tokens.items()})

    def _until(self, wanted: dict[str, int]) -> None:
        """Step until every sequence has at least so many tokens of its own."""
        engine = self._llm.llm_engine
        while any(self._tokens[name] < tokens for name, tokens in wanted.items()):
            if not engine.has_unfinished_requests():
                raise CellFailure(
                    "unsupported",
                    f"vLLM ended a sequence before it had {max(wanted.values())} tokens: the context is full",
                )
            for output in engine.step():
                self._tokens[output.request_id] = len(output.outputs[0].token_ids)

    def _drop(self) -> None:
        if self._tokens:
            self._llm.llm_engine.abort_request(list(self._tokens))
            self._tokens = {}

    def memory(self) -> EngineMemory:
        """Weights of all GPUs, and the blocks of the cache that the sequences hold, by vLLM's own sizes."""
        states = self._llm.collective_rpc(_vllm_worker.state)
        weights = [s.weights_bytes for s in states]
        known = [size for size in weights if size is not None]
        counted = len(known) == len(weights)
        return EngineMemory(
            weights_bytes=sum(known) if counted else None,
            kv_cache_bytes=self._cache_share(sum(s.cache_bytes for s in states)),
            by_device={f"cuda:{n}": size for n, size in enumerate(known)}
            if counted and len(known) > 1
            else {},
            weights_reason=None if counted else _vllm_worker.NOT_COUNTED,
        )

    def _cache_share(self, allocated: int) -> int:
        """Of the allocated bytes of cache, those of the blocks that the sequences hold."""
        block, whole = int(self._cache.block_size), int(self._cache.kv_cache_size_tokens or 0)
        held = sum(-(-(self._prompt_tokens + made) // block) * block for made in self._tokens.values())
        return allocated * held // whole if whole else allocated

    def weight_reads(self) -> WeightReads:
        states = self._llm.collective_rpc(_vllm_worker.state)
        experts, config = (
            sum(s.expert_bytes for s in states),
            self._llm.llm_engine.vllm_config.model_config.hf_text_config,
        )
        return WeightReads(
            sum(s.always_bytes for s in states), experts, *(experts_of(config) if experts else ())
        )

    def close(self) -> None:
        import gc

        self._drop()
        self._llm.llm_engine.engine_core.shutdown()  # vLLM hides its objects from the collector until then
        self._llm = None
        gc.collect()


def _named(counts: list[dict[str, int]]) -> str:
    """`AutoGPTQLinearMethod (MarlinLinearKernel) × 112, ...`, of the first worker: all have the same
    layers."""
    kernels = sorted(counts[0].items(), key=lambda item: -item[1]) if counts else []
    return "vLLM: " + (", ".join(f"{name} × {count}" for name, count in kernels) or "unknown")


class Vllm(Engine):
    """vLLM."""

    name = "vllm"
    title = "vLLM"
    summary = (
        "safetensors checkpoints through vLLM on NVIDIA GPUs; only where it is asked for (no GPU has run it"
        " yet)"
    )
    formats = (SAFETENSORS,)
    requires = ("vllm",)
    install = INSTALL
    reserves_gpu = True
    serves_releases = True
    by_layers_note = (
        "vLLM can split it by layers alone (--pipeline-parallel-size), and its GPUs then work in turn"
    )
    cache_policy = "transformers"

    def imports(self, checkpoint: Checkpoint) -> tuple[str, ...]:
        """torch and vLLM. Raises CellFailure where vLLM is not installed."""
        require_vllm()
        return ("torch", "vllm")

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
        manifest = checkpoint.manifest
        cache = manifest.settings.get("cache")
        dtype = "float32" if float32 and not quantization_config(checkpoint.weights) else "auto"
        return VllmEngine(
            checkpoint.weights, checkpoint.tokenizer, device, manifest.trust_remote_code, cache, dtype, demand
        )

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
