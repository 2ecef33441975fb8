"""Hold vLLM's engine in a worker process, and obey what quantlab's vLLM engine asks of it.

Prefill and decode are vLLM's own steps (`LLMEngine.step`), counted by the tokens that each sequence has: a
prefill ends when every sequence has its first token. Where a batch is more than vLLM schedules in one step,
the first sequences decode while the last ones are still read, and prefill takes that work with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quantlab.apart import vllm_inside, vllm_text
from quantlab.apart.vllm_logits import window_logits
from quantlab.errors import CellFailure

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_FIRST_NAME = 10**9
"""vLLM reads the names of requests as numbers, and counts its own from 0."""
_LONGEST = 300

Made = tuple[dict[str, Any], dict[str, Any]]


class Commands:
    """Every public method is a command; `quantlab.apart.serving` says how it is asked."""

    def __init__(self) -> None:
        self._llm: Any = None
        self._tokens: dict[str, int] = {}
        self._prompt_tokens, self._requests = 0, 0

    def load_library(self, cpu: bool) -> dict[str, Any]:
        """Import vLLM, with nothing loaded."""
        if cpu:
            _allow_tiles()
            vllm_inside.watch_loading()
        import vllm

        return {"version": vllm.__version__}

    def open(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Load a checkpoint with these arguments of `vllm.LLM`, and say what it is."""
        import vllm

        others = {key: value for key, value in arguments.items() if key != "trust_remote_code"}
        try:
            self._llm = vllm.LLM(trust_remote_code=arguments["trust_remote_code"], **others)
        except ValueError as error:  # vLLM's word for a method, a model or a size that it does not take
            text = " ".join(str(error).split())[:_LONGEST]
            kind = "does_not_fit" if "memory" in text.lower() else "unsupported"
            raise CellFailure(kind, f"vLLM: {text}") from error  # type: ignore[arg-type]
        return self._about()

    def _about(self) -> dict[str, Any]:
        config = self._llm.llm_engine.vllm_config
        model, cache = config.model_config, config.cache_config
        said = model.try_get_generation_config().get("eos_token_id")
        counts = self._llm.collective_rpc(vllm_inside.kernels)
        return {
            "dtype": str(model.dtype).removeprefix("torch."),
            "cache_dtype": str(cache.cache_dtype),
            "context": int(model.max_model_len),
            "vocabulary": int(model.get_vocab_size()),
            "block": int(cache.block_size),
            "capacity": _capacity(model, cache),
            "kernels": counts[0] if counts else {},
            "threads": vllm_inside.threads(),
            "end_ids": said if isinstance(said, list) or said is None else [said],
        }

    def logits(self, token_ids: NDArray[np.int64], vocabulary: int, free_bytes: int) -> Made:
        """Logits, or log-probabilities, (length, vocabulary) of one window."""
        self.drop()
        return {}, {"logits": window_logits(self._llm, token_ids, vocabulary, free_bytes)}

    def score(self, ids: NDArray[np.int64], lengths: NDArray[np.int64], scored: NDArray[np.int64]) -> Made:
        """Log-probabilities of the end of each text."""
        self.drop()
        made = vllm_text.score(self._llm, vllm_text.split(ids, lengths), scored.tolist())
        return {}, made._asdict()

    def answer(self, ids: NDArray[np.int64], lengths: NDArray[np.int64], limit: int, stop: list[str]) -> Made:
        """Greedy answers to prompts."""
        self.drop()
        made = vllm_text.answer(self._llm, vllm_text.split(ids, lengths), limit, stop)
        return {}, made._asdict()

    def prefill(self, token_ids: NDArray[np.int64], room: int) -> None:
        """Read (batch, length) prompts, from an empty cache, with room for so many tokens after each."""
        from vllm import SamplingParams

        self.drop()
        self._prompt_tokens = token_ids.shape[1]
        going_on = SamplingParams(temperature=0, max_tokens=room, ignore_eos=True, detokenize=False)
        for ids in token_ids.tolist():
            name, self._requests = str(_FIRST_NAME + self._requests), self._requests + 1
            self._tokens[name] = 0
            self._llm.llm_engine.add_request(name, {"prompt_token_ids": ids}, going_on)
        self._until(dict.fromkeys(self._tokens, 1))

    def decode(self, tokens: int) -> None:
        """Make so many more tokens of every sequence."""
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

    def drop(self) -> None:
        """Give up the sequences of the last prefill."""
        if self._tokens:
            self._llm.llm_engine.abort_request(list(self._tokens))
            self._tokens = {}

    def held(self) -> dict[str, Any]:
        """How many tokens of each sequence are in the cache: all but the newest, which was not read yet."""
        return {"tokens": [self._prompt_tokens + made - 1 for made in self._tokens.values()]}

    def memory(self) -> dict[str, Any]:
        """Each worker's account of its part of the model, and the sequences' tokens."""
        states = [state._asdict() for state in self._llm.collective_rpc(vllm_inside.state)]
        return {"states": states} | self.held()

    def close(self) -> None:
        """Give all memory back."""
        self.drop()
        if self._llm is not None:
            self._llm.llm_engine.engine_core.shutdown()
            self._llm = None


def _capacity(model: Any, cache: Any) -> int:
    """Tokens that the cache holds, in whole blocks; 0 where vLLM does not tell.

    vLLM counts sequences of the longest length, of which each wastes the rest of its last block
    (vllm/v1/core/kv_cache_utils.py)."""
    longest, block = int(model.max_model_len), int(cache.block_size)
    return int(cache.kv_cache_size_tokens or 0) * (-(-longest // block) * block) // longest


def _allow_tiles() -> None:
    """Ask the system for the tile registers (AMX): vLLM's attention uses them wherever the processor has
    them, and the first use without that permission ends the process with SIGILL."""
    import torch

    begin = getattr(torch.cpu, "_init_amx", None)
    if begin is not None:
        begin()
