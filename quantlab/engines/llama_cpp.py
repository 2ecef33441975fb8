"""Run GGUF files with llama.cpp in this process, on a CPU or a CUDA device.

Prefill and decode are llama-bench's: batches of 2,048 tokens computed 512 at a time, the logits of the last
token only, then single tokens chosen greedily, from an empty cache. The cache is allocated for the run's
length, rounded up by llama.cpp to 256 tokens. On a GPU llama.cpp chooses flash attention for these runs by
itself, as its server does, and the kernel says what it chose; on a CPU, and wherever logits are compared, it
is off. No GPU has run this file yet."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantlab.architecture.cache_types import is_quantized
from quantlab.architecture.roofline import WeightReads
from quantlab.engines._contract import (
    ANYTHING,
    Chosen,
    Demand,
    Engine,
    EngineMemory,
    OpenCheckpoint,
    Routed,
    Served,
    ServeTarget,
)
from quantlab.engines._llama.experts import ChosenExperts
from quantlab.engines._llama.inside import dtype_of, kernel_of, reads_of
from quantlab.engines._llama.library import Batch, Context, Model, laid_out
from quantlab.formats import GGUF
from quantlab.formats.gguf import stored_tensors
from quantlab.hardware.device import find, parse_places
from quantlab.processors import cores

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from quantlab.workspace.checkpoint import Checkpoint

_BATCH, _UBATCH = 2048, 512
_ALL_LAYERS = 999
"""llama-server takes it for all layers, in old and new versions; `all` is understood by new ones alone."""


class LlamaCppEngine(OpenCheckpoint):
    """See `quantlab.engines.OpenCheckpoint`."""

    name = "llama_cpp"
    dense = False

    def __init__(
        self, file: Path, tokenizer: Path, device: str, trust_remote_code: bool = False, cache: str = "f16"
    ) -> None:
        self._model, self._file = Model(file, device, cache), file
        self._tokenizer, self._trust = tokenizer, trust_remote_code
        self._context: Context | None = None
        self._key: tuple[int, ...] = ()
        self._experts: ChosenExperts | None = None
        self._lm: Any = None
        self._decode_tokens = 0
        self.device = find(device).name
        self.threads = None if parse_places(device).gpus else cores()
        self.dtype = self.scored_in = dtype_of(file, device, cache)
        self._on_gpu = bool(parse_places(device).gpus)
        self.kernel = kernel_of(self._model, self._chosen_flash())
        self.cache_dtype, self.context_tokens = cache, self._model.trained_context

    def logits(self, token_ids: NDArray[np.int64], first: int = 0) -> NDArray[np.float32]:
        return self._logits(token_ids, first)

    def routed_logits(self, token_ids: NDArray[np.int64], first: int = 0) -> Routed:
        if not int(self._model.metadata(".expert_count") or 0):
            return Routed(self.logits(token_ids, first), Chosen())
        self._experts = self._experts or ChosenExperts()
        logits = self._logits(token_ids, first, self._experts.callback)
        return Routed(logits, Chosen(self._experts.take(len(token_ids) - first)))

    def _logits(self, token_ids: NDArray[np.int64], first: int, watch: Any = None) -> NDArray[np.float32]:
        n = len(token_ids)
        context = self._make(n, n, n, 1, True, watch)
        context.clear()
        # the head is a fifth of a small model's work: it is not asked for rows that nobody reads
        return context.run(Batch(token_ids, range(n), [(0,)] * n, [row >= first for row in range(n)])).copy()

    def language_model(self, batch_size: int) -> Any:
        from quantlab.engines._llama.lm import LlamaLM
        from quantlab.models.loading import load_tokenizer

        self._close_contexts()
        tokenizer = load_tokenizer(self._tokenizer, self._trust)
        self._lm = LlamaLM(self._model, tokenizer, self._tokenizer, batch_size)
        return self._lm

    def prefill(self, token_ids: NDArray[np.int64]) -> None:
        import numpy as np

        sequences, length = token_ids.shape
        # A decode of the same length is to be expected after this prefill: its cells are there from the
        # second one on.
        context = self._make(
            sequences * _padded(length + self._decode_tokens),
            min(_BATCH, token_ids.size),
            _UBATCH,
            sequences,
            False,
        )
        context.clear()
        flat, wanted = token_ids.reshape(-1), np.tile(np.arange(length) == length - 1, sequences)
        positions, owners = np.tile(np.arange(length), sequences), np.repeat(np.arange(sequences), length)
        chosen: list[int] = []
        for part in (slice(i, i + context.batch) for i in range(0, len(flat), context.batch)):
            rows = context.run(
                Batch(flat[part], positions[part], [(int(s),) for s in owners[part]], wanted[part])
            )
            chosen += rows.argmax(axis=1).tolist() if len(rows) else []
        context.wait()
        self._history, self._next = token_ids, np.array(chosen, np.int64)

    def generate(self, prompts: Sequence[str], tokens: int) -> list[list[int]]:
        answers: list[list[int]] = self.language_model(len(prompts)).continuations(list(prompts), tokens)
        return answers

    def end_ids(self) -> frozenset[int]:
        ends: frozenset[int] = self.language_model(1).end_ids
        return ends

    def decode(self, tokens: int) -> None:
        import numpy as np

        assert self._context is not None, "decode comes after a prefill"
        if self._history.shape[1] + tokens > self._context.cells // self._context.sequences:
            self._decode_tokens = tokens
            self.prefill(self._history)
        context = self._context
        n, made = len(self._next), [self._next]
        step = laid_out(Batch(made[0], [self._history.shape[1]] * n, [(s,) for s in range(n)], [True] * n))
        for _ in range(tokens):
            step.tokens[:] = made[-1]
            made.append(context.compute(step).argmax(axis=1))
            step.positions[:] += 1
        context.wait()
        self._history, self._next = (
            np.concatenate([self._history, np.stack(made[:-1], axis=1)], axis=1),
            made[-1],
        )

    def memory(self) -> EngineMemory:
        held = (self._context.cache_bytes, self._context.state_bytes) if self._context else (0, 0)
        return EngineMemory(self._model.weights_bytes, *held, by_device=self._model.bytes_by_device)

    def weight_reads(self) -> WeightReads:
        return reads_of(stored_tensors(self._file), self._model.metadata(".expert_used_count"))

    def close(self) -> None:
        self._close_contexts()
        self._model.close()

    def _chosen_flash(self) -> bool:
        """Whether timed runs compute flash attention: on a GPU a small context tells what llama.cpp
        chooses."""
        if not self._on_gpu:
            return is_quantized(self._model.cache)
        tried = Context(self._model, 256, 1, 1, full_window=False, choose_flash=True)
        tried.close()
        return tried.flash_attention

    def _make(
        self, cells: int, batch: int, ubatch: int, sequences: int, full_window: bool, watch: Any = None
    ) -> Context:
        """The one context that is held, made anew where another is asked for: a run needs only one at a
        time."""
        key = (cells, batch, ubatch, sequences, full_window, watch is not None)
        if self._context is None or self._key != key:
            self._close_contexts()
            self._context = Context(
                *(self._model, cells, batch, ubatch, sequences),
                full_window=full_window,
                choose_flash=self._on_gpu and not full_window,
                watch=watch,
            )
            self._key = key
        return self._context

    def _close_contexts(self) -> None:
        for held in (self._context, self._lm):
            if held is not None:
                held.close()
        self._context = self._lm = None


def _padded(tokens: int) -> int:
    """llama.cpp allocates caches in steps of 256 tokens."""
    return -(-tokens // 256) * 256


class LlamaCpp(Engine):
    """llama.cpp."""

    name = "llama_cpp"
    title = "llama.cpp"
    summary = "GGUF files through llama.cpp (llama-cpp-python), in process"
    formats = (GGUF,)
    runs_by_default = (GGUF,)
    requires = ("llama-cpp-python",)
    extra = "gguf"
    sixteen_bit = "gguf-16"
    splits_by_layers = True
    cache_policy = "llama_cpp"
    cache_dtype = "float16"

    def imports(self, checkpoint: Checkpoint) -> tuple[str, ...]:
        """numpy and the library."""
        return ("numpy", "llama_cpp")

    def open_checkpoint(
        self,
        checkpoint: Checkpoint,
        device: str,
        dense: bool = False,
        float32: bool = False,
        demand: Demand = ANYTHING,
    ) -> LlamaCppEngine:
        """Load a GGUF checkpoint; `dense` means nothing here, nor does `float32`: llama.cpp computes in it
        anyway. A context is made for each call, whatever the `demand`.

        Raises CellFailure where it cannot run.
        """
        checkpoint.require_weights()
        manifest = checkpoint.manifest
        cache = manifest.settings.get("cache", "f16")
        return LlamaCppEngine(
            checkpoint.gguf(), checkpoint.tokenizer, device, manifest.trust_remote_code, cache
        )

    def serve(self, target: ServeTarget) -> Served:
        """Give llama-server's command and Ollama's (flags of llama.cpp's tools/server/README.md)."""
        words = ["llama-server", "--model", target.path, "--ctx-size", str(target.context_tokens)]
        words += [
            "--gpu-layers",
            str(_ALL_LAYERS if target.gpus else 0),
            "--parallel",
            "1",
            "--alias",
            target.name,
        ]
        return Served(
            shlex.join(words),
            modelfile=f"FROM {target.path}\nPARAMETER num_ctx {target.context_tokens}\n",
            create=shlex.join(["ollama", "create", target.name, "-f", "Modelfile"]),
            notes=(
                "llama-server shares the context among its slots: with --parallel N give N times as much",
            ),
        )


ENGINE = LlamaCpp()
