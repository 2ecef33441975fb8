"""Give lm-eval a language model over a vLLM that runs in another process: texts are read and written here,
token ids go over."""

from __future__ import annotations

from typing import Any, Protocol

from quantlab.engines._token_lm import TokenLM

_SPARE = 2
"""Tokens of vLLM's context that a text cannot have: one that vLLM makes after every prompt, and the last one
of a continuation, which other engines are not fed."""


class Scoring(Protocol):
    """What the engine does with token ids."""

    context: int

    def score(self, texts: list[list[int]], scored: list[int]) -> list[tuple[float, bool]]: ...

    def continued(
        self, prompts: list[list[int]], limit: int, stop: list[str]
    ) -> list[tuple[list[int], bool]]: ...


class VllmLM(TokenLM):
    """See `lm_eval.api.model.TemplateLM`."""

    engine_name = "vllm"

    def __init__(self, engine: Scoring, tokenizer: Any, batch_size: int) -> None:
        super().__init__(tokenizer, batch_size)
        self._engine = engine

    @property
    def max_length(self) -> int:
        """The context that vLLM was opened for, less what it needs itself."""
        return int(self._engine.context) - _SPARE

    def _loglikelihood_tokens(
        self, requests: list[tuple[Any, list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        longest = self.max_length + 1
        answers: list[tuple[float, bool]] = []
        for begin in range(0, len(requests), self.batch_size):
            part = requests[begin : begin + self.batch_size]
            texts = [(context + continuation)[-longest:] for _, context, continuation in part]
            made = self._engine.score(texts, [len(continuation) for _, _, continuation in part])
            for (text, _, _), one in zip(part, made, strict=True):
                answers.append(one)
                if text is not None:
                    self.cache_hook.add_partial("loglikelihood", text, one)
        return answers

    def _answers(self, contexts: list[str], limit: int, until: list[str]) -> list[tuple[list[int], bool]]:
        return self._engine.continued(
            self.prompt_ids(contexts, limit), limit, [term for term in until if term]
        )

    def continuations(self, prompts: list[str], limit: int) -> list[list[int]]:
        """Greedy token ids after each prompt, at most so many, an end token included. Raises CellFailure."""
        return [ids for ids, _ in self._engine.continued(self.prompt_ids(prompts, limit), limit, [])]
