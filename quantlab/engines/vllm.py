"""Run safetensors checkpoints with vLLM on NVIDIA GPUs, in process, with tensor parallelism.

**No GPU has run this file.** It is written against the interface of vLLM 0.33.0 (`LLM`, `SamplingParams`,
`LLMEngine`), and its tests run it over a module that records what it is asked. vLLM reads GPTQ, AWQ and FP8
checkpoints; 0.33.0 has no bitsandbytes method (older versions do), and what it refuses is recorded with its
own words.

It is never chosen by itself: `engines.engine_for` gives it where it is asked for by name. It needs an
environment of its own, because it pins another torch.

Prefill and decode are vLLM's own steps (`LLMEngine.step`), counted by the tokens that each sequence has: a
prefill ends when every sequence has its first token. Where a batch is more than vLLM schedules in one step,
the first sequences decode while the last ones are still read, and prefill takes that work with it. Logits are
log-probabilities (a constant per position away, which no divergence sees) of the whole vocabulary, exact:
vLLM gives them as lists of numbers, which is slow and takes about 100 bytes each; a window that does not fit
is refused."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantlab.architecture.fields import experts_of
from quantlab.architecture.roofline import WeightReads
from quantlab.engines._contract import (
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
from quantlab.errors import CellFailure
from quantlab.formats import SAFETENSORS
from quantlab.hardware.device import parse_places, visible_to

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from quantlab.workspace.checkpoint import Checkpoint

_BYTES_PER_LOGPROB = 100  # a float and an integer as Python objects, and four places in lists


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
    ) -> None:
        places = gpus_only(device)
        self.parallel = len(places.gpus)
        """GPUs that read their part of the weights at the same time."""
        self.device = f"{len(places.gpus)} GPU of {device}" if len(places.gpus) > 1 else device
        self._weights, self._tokenizer, self._trust = weights, tokenizer, trust_remote_code
        self._llm = load(weights, tokenizer, places, trust_remote_code, cache, dtype)
        config = self._llm.llm_engine.vllm_config
        self._cache = config.cache_config
        self.dtype = str(config.model_config.dtype).removeprefix("torch.")
        self.scored_in = with_float32_softmax(self.dtype)
        self.cache_dtype = self.dtype if self._cache.cache_dtype == "auto" else str(self._cache.cache_dtype)
        self.context_tokens: int | None = int(config.model_config.max_model_len)
        self._vocabulary = int(config.model_config.get_vocab_size())
        self.kernel = _named(self._llm.collective_rpc(_vllm_worker.kernels))
        self._tokens: dict[str, int] = {}
        self._prompt_tokens, self._runs = 0, 0

    def logits(self, token_ids: NDArray[np.int64], first: int = 0) -> NDArray[np.float32]:
        import numpy as np
        import psutil
        from vllm import SamplingParams

        needed, there = (
            len(token_ids) * self._vocabulary * _BYTES_PER_LOGPROB,
            psutil.virtual_memory().available,
        )
        if needed > there:
            raise CellFailure(
                "does_not_fit",
                f"vLLM gives the log-probabilities of {len(token_ids)} tokens over {self._vocabulary:,} words"
                f" in about {needed / 2**30:.0f} GiB of lists, {there / 2**30:.0f} GiB are free: use shorter"
                " windows or the transformers engine",
            )
        wanted = SamplingParams(
            temperature=0,
            max_tokens=1,
            ignore_eos=True,
            detokenize=False,
            prompt_logprobs=-1,
            logprobs=-1,
            flat_logprobs=True,
        )
        [output] = self._llm.generate([{"prompt_token_ids": token_ids.tolist()}], wanted, use_tqdm=False)
        rows = np.full((len(token_ids), self._vocabulary), np.nan, np.float32)
        _scatter(rows[:-1], output.prompt_logprobs, first=1)  # entry i is of token i, so of the row before it
        _scatter(rows[-1:], output.outputs[0].logprobs, first=0)
        if np.isnan(rows).any():
            raise CellFailure("unsupported", "vLLM left words of the vocabulary out of its log-probabilities")
        return rows[first:]

    def language_model(self, batch_size: int) -> Any:
        """lm-eval's own vLLM model, around the engine that is loaded: it makes one from this name
        otherwise."""
        from unittest import mock

        from lm_eval.models import vllm_causallms

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
        self._runs, self._prompt_tokens = self._runs + 1, token_ids.shape[1]
        room = (self.context_tokens or 0) - self._prompt_tokens
        if room < 1:
            raise CellFailure(
                "unsupported",
                f"a prompt of {self._prompt_tokens} tokens leaves no room in {self.context_tokens}",
            )
        going_on = SamplingParams(temperature=0, max_tokens=room, ignore_eos=True, detokenize=False)
        for row, ids in enumerate(token_ids.tolist()):
            name = f"run-{self._runs}-{row}"
            self._tokens[name] = 0
            self._llm.llm_engine.add_request(name, {"prompt_token_ids": ids}, going_on)
        self._until(dict.fromkeys(self._tokens, 1))

    def generate(self, prompts: Sequence[str], tokens: int) -> list[list[int]]:
        from vllm import SamplingParams

        self._drop()
        greedy = SamplingParams(temperature=0, max_tokens=tokens)
        made = self._llm.generate(list(prompts), greedy, use_tqdm=False)
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
        block, whole = int(self._cache.block_size), int(self._cache.kv_cache_size_tokens or 0)
        held = sum(-(-(self._prompt_tokens + made) // block) * block for made in self._tokens.values())
        cache = sum(s.cache_bytes for s in states)
        return EngineMemory(
            weights_bytes=sum(s.weights_bytes for s in states),
            kv_cache_bytes=cache * held // whole if whole else cache,
            by_device={f"cuda:{n}": s.weights_bytes for n, s in enumerate(states)} if len(states) > 1 else {},
        )

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
        self._llm = None
        gc.collect()


def _scatter(rows: NDArray[np.float32], flat: Any, first: int) -> None:
    """Fill rows (positions, vocabulary) from vLLM's FlatLogprobs, whose entries from `first` on are the
    positions."""
    import numpy as np

    for row, (start, stop) in enumerate(
        zip(flat.start_indices[first:], flat.end_indices[first:], strict=True)
    ):
        rows[row, np.asarray(flat.token_ids[start:stop])] = flat.logprobs[start:stop]


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
        self, checkpoint: Checkpoint, device: str, dense: bool = False, float32: bool = False
    ) -> VllmEngine:
        """Load a checkpoint; `dense` means nothing here, `float32` only to plain layers. Raises CellFailure
        where it cannot run."""
        from quantlab.formats.quantization import quantization_config

        checkpoint.require_weights()
        manifest = checkpoint.manifest
        cache = manifest.settings.get("cache")
        dtype = "float32" if float32 and not quantization_config(checkpoint.weights) else "auto"
        return VllmEngine(
            checkpoint.weights, checkpoint.tokenizer, device, manifest.trust_remote_code, cache, dtype
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
