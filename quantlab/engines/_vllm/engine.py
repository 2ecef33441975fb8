"""Hold a checkpoint that is open in vLLM, in a worker process of its own.

Logits are the model's own, or where vLLM does not show them log-probabilities of the whole vocabulary (a
constant per position away, which no divergence sees)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from quantlab.architecture.fields import experts_of
from quantlab.architecture.roofline import WeightReads
from quantlab.engines._contract import EngineMemory, OpenCheckpoint, Resident, with_float32_softmax
from quantlab.environments.worker import Reply
from quantlab.errors import CellFailure
from quantlab.hardware.device import Places
from quantlab.hardware.memory import available_bytes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NOT_COUNTED = "vLLM counts the memory of loaded weights on GPUs alone"


class Connection(Protocol):
    """A worker that obeys `quantlab.apart.vllm_engine`."""

    def ask(self, do: str, arrays: Any = None, **values: Any) -> Reply: ...

    def resident(self) -> tuple[int, int]: ...

    def close(self) -> None: ...


class VllmEngine(OpenCheckpoint):
    """See `quantlab.engines.OpenCheckpoint`."""

    name = "vllm"
    dense = False

    def __init__(
        self, worker: Connection, arguments: dict[str, Any], places: Places, device: str, trust: bool = False
    ) -> None:
        """`arguments` are those of `vllm.LLM`. Raises CellFailure where vLLM does not take the checkpoint."""
        self._worker, self._trust = worker, trust
        self._weights, self._tokenizer = Path(arguments["model"]), Path(arguments["tokenizer"])
        self.parallel = max(len(places.gpus), 1)
        """GPUs that read their part of the weights at the same time."""
        self.device = f"{self.parallel} GPU of {device}" if self.parallel > 1 else device
        self._on_gpus = bool(places.gpus)
        about = self._about = worker.ask("open", arguments=arguments).values
        self.dtype: str = about["dtype"]
        self.scored_in = with_float32_softmax(self.dtype)
        self.cache_dtype = self.dtype if about["cache_dtype"] == "auto" else about["cache_dtype"]
        self.threads = None if self._on_gpus else about["threads"]
        self.context = int(about["context"])
        self.context_tokens: int | None = self.context
        self.kernel = _named(about["kernels"])
        self._lm: Any = None

    def logits(self, token_ids: NDArray[np.int64], first: int = 0) -> NDArray[np.float32]:
        self._require_place(len(token_ids))
        asked = {"vocabulary": self._about["vocabulary"], "free_bytes": available_bytes()}
        made = self._worker.ask("logits", {"token_ids": token_ids}, **asked)
        rows: NDArray[np.float32] = made.arrays["logits"]
        return rows[first:]

    def _require_place(self, tokens: int) -> None:
        """Raise CellFailure where a window and the token after it are more than the context."""
        if tokens >= self.context:
            raise CellFailure(
                "unsupported",
                "vLLM gives the last row of a window with the token that it generates after it: a window of"
                f" {tokens:,} tokens leaves no room for it in {self.context:,}; use shorter windows or the"
                " transformers engine",
            )

    def language_model(self, batch_size: int) -> Any:
        from quantlab.engines._vllm.lm import VllmLM
        from quantlab.models.loading import load_tokenizer

        if self._lm is None:
            self._lm = VllmLM(self, load_tokenizer(self._tokenizer, self._trust), batch_size)
        self._lm.batch_size = batch_size
        self._worker.ask("drop")
        return self._lm

    def score(self, texts: list[list[int]], scored: list[int]) -> list[tuple[float, bool]]:
        """Log-probabilities of the last `scored` tokens of each text, and whether each was the likeliest."""
        import numpy as np

        arrays = _joined(texts) | {"scored": np.array(scored, np.int64)}
        made = self._worker.ask("score", arrays).arrays
        return list(zip(made["sums"].tolist(), made["greedy"].tolist(), strict=True))

    def continued(
        self, prompts: list[list[int]], limit: int, stop: list[str]
    ) -> list[tuple[list[int], bool]]:
        """Each prompt's greedy answer until a stop string, an end token or the limit, and whether the limit
        ended it."""
        made = self._worker.ask("answer", _joined(prompts), limit=limit, stop=stop).arrays
        ends, ids = made["lengths"].cumsum().tolist(), made["ids"].tolist()
        parts = [ids[end - length : end] for end, length in zip(ends, made["lengths"].tolist(), strict=True)]
        return list(zip(parts, made["cut"].tolist(), strict=True))

    def generate(self, prompts: Sequence[str], tokens: int) -> list[list[int]]:
        """Its own model reads the prompts: vLLM itself would put a second start token before a chat
        template's."""
        made: list[list[int]] = self.language_model(len(prompts)).continuations(list(prompts), tokens)
        return made

    def end_ids(self) -> frozenset[int]:
        """The tokens that the model's generation config names, else the tokenizer's."""
        ends = self._about["end_ids"]
        return frozenset([self.language_model(1).eot_token_id] if ends is None else ends)

    def prefill(self, token_ids: NDArray[np.int64]) -> None:
        sequences, length = token_ids.shape
        room = self.context - length
        if room < 1:
            raise CellFailure("unsupported", f"a prompt of {length} tokens leaves no room in {self.context}")
        self._require_capacity([length] * sequences)
        self._worker.ask("prefill", {"token_ids": token_ids}, room=room)

    def decode(self, tokens: int) -> None:
        held = self._worker.ask("held").values["tokens"]
        self._require_capacity([count + tokens for count in held if count + tokens <= self.context])
        self._worker.ask("decode", tokens=tokens)

    def _require_capacity(self, lengths: list[int]) -> None:
        """Raise CellFailure where the cache does not hold these sequences at once: vLLM would put some off
        and read them again, and its speed would be another workload's."""
        capacity, needed = self._about["capacity"], sum(map(self._padded, lengths))
        if capacity and needed > capacity - self._about["block"]:  # vLLM keeps one block for itself
            raise CellFailure(
                "does_not_fit",
                f"{len(lengths)} sequences of {max(lengths):,} tokens are more than the {capacity:,} tokens"
                " that vLLM's cache holds",
            )

    def _padded(self, tokens: int) -> int:
        block = int(self._about["block"])
        return -(-tokens // block) * block

    def memory(self) -> EngineMemory:
        """Weights of all GPUs, and the blocks of the cache that the sequences hold, by vLLM's own sizes."""
        told = self._worker.ask("memory").values
        weights = [state["weights_bytes"] for state in told["states"]]
        known = [size for size in weights if size is not None]
        counted = len(known) == len(weights)
        allocated, whole = sum(state["cache_bytes"] for state in told["states"]), self._about["capacity"]
        held = sum(map(self._padded, told["tokens"]))
        return EngineMemory(
            weights_bytes=sum(known) if counted else None,
            kv_cache_bytes=allocated * held // whole if whole else allocated,
            by_device={f"cuda:{n}": size for n, size in enumerate(known)}
            if counted and len(known) > 1
            else {},
            weights_reason=None if counted else NOT_COUNTED,
        )

    def weight_reads(self) -> WeightReads:
        from quantlab.models.loading import load_config

        states = self._worker.ask("memory").values["states"]
        experts = sum(state["expert_bytes"] for state in states)
        config = load_config(self._weights, self._trust).get_text_config(decoder=True) if experts else None
        return WeightReads(
            sum(state["always_bytes"] for state in states), experts, *(experts_of(config) if experts else ())
        )

    def resident(self) -> Resident:
        return Resident(*self._worker.resident())

    def close(self) -> None:
        self._worker.ask("close")
        self._worker.close()


def _joined(texts: list[list[int]]) -> dict[str, NDArray[np.int64]]:
    import numpy as np

    return {
        "ids": np.array([token for text in texts for token in text], np.int64),
        "lengths": np.array([len(text) for text in texts], np.int64),
    }


def _named(counts: dict[str, int]) -> str:
    """`AutoGPTQLinearMethod (MarlinLinearKernel) × 112, ...`, of the first worker: all have the same
    layers."""
    kernels = sorted(counts.items(), key=lambda item: -item[1])
    return "vLLM: " + (", ".join(f"{name} × {count}" for name, count in kernels) or "unknown")
