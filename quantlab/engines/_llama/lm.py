"""Give lm-eval a language model over llama.cpp that answers as HFLM does on the same weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from quantlab.engines._llama.generate import generate, read_rules
from quantlab.engines._llama.library import Context, Model
from quantlab.engines._llama.score import MAX_CHOICES, Scorer, packs, questions
from quantlab.engines._token_lm import TokenLM
from quantlab.errors import CellFailure

_UBATCH = 512
_STEP = 256
_SHOWN = 80


class LlamaLM(TokenLM):
    """See `lm_eval.api.model.TemplateLM`."""

    engine_name = "llama_cpp"

    def __init__(self, model: Model, tokenizer: Any, folder: Path, batch_size: int) -> None:
        """`batch_size` sequences at a time; `folder` holds the tokenizer and the generation config."""
        super().__init__(tokenizer, batch_size)
        self._model, self._rules = model, read_rules(folder, tokenizer.eos_token_id)
        self._context: Context | None = None
        self._scorer: Scorer | None = None

    @property
    def max_length(self) -> int:
        """The context that the model was trained for, which transformers calls max_position_embeddings."""
        return self._model.trained_context

    def _loglikelihood_tokens(
        self, requests: list[tuple[Any, list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        todo = questions(
            ((context, continuation) for _, context, continuation in requests),
            self.max_length,
            share=not self._model.recurrent,
        )
        if not todo:
            return []
        most = max(len(question.choices) for question in todo)
        if most > MAX_CHOICES:
            raise CellFailure(
                "unsupported",
                f"{most} choices of one question are more than the {MAX_CHOICES} that llama.cpp takes at"
                " once",
            )
        sequences, tokens = (
            max(most, min(self.batch_size, MAX_CHOICES)),
            max(_UBATCH, *(question.tokens for question in todo)),
        )
        longest = max(len(question.context) for question in todo)
        scorer = self._scorer_in(self._make(longest + tokens, sequences + 1, unified=True))
        answers: dict[int, tuple[float, bool]] = {}
        for pack in packs(todo, tokens, sequences, scorer.shares):
            for score in scorer.score(pack):
                answers[score.request] = (score.log_probability, score.greedy)
                if requests[score.request][0] is not None:
                    self.cache_hook.add_partial(
                        "loglikelihood", requests[score.request][0], answers[score.request]
                    )
        return [answers[i] for i in range(len(requests))]

    @property
    def end_ids(self) -> frozenset[int]:
        """Tokens that end an answer."""
        return self._rules.end_ids

    def continuations(self, prompts: list[str], limit: int) -> list[list[int]]:
        """Greedy token ids after each prompt, at most so many, an end token included. Raises CellFailure."""
        return self._continue(prompts, limit, lambda tokens: False)

    def _answers(self, contexts: list[str], limit: int, until: list[str]) -> list[tuple[list[int], bool]]:
        longest = (
            max(len(term) for term in until) + 8
        )  # tokens that a stop string can lie in, with room for partial characters

        def stopped(tokens: list[int]) -> bool:
            tail = self.tokenizer.decode(tokens[-longest:])
            return any(term in tail for term in until if term)

        def truncated(tokens: list[int]) -> bool:
            whole = self.tokenizer.decode(tokens)
            return (
                len(tokens) >= limit
                and tokens[-1] not in self.end_ids
                and not any(term in whole for term in until if term)
            )

        made = self._continue(contexts, limit, stopped)
        return [(tokens, truncated(tokens)) for tokens in made]

    def _continue(
        self, texts: list[str], limit: int, stopped: Callable[[list[int]], bool]
    ) -> list[list[int]]:
        prompts = self.prompt_ids(texts, limit)
        names = [f"the prompt that ends with {text[-_SHOWN:]!r}" for text in texts]
        context = self._make(max(map(len, prompts)) + limit, len(prompts), unified=False)
        return generate(context, prompts, limit, self._rules, stopped, names)

    def _make(self, tokens: int, sequences: int, unified: bool) -> Context:
        """A context with room for so many tokens in all (unified), or in each sequence; the held one where it
        will do."""
        cells = -(-tokens // _STEP) * _STEP * (1 if unified else sequences)
        held = self._context
        if (
            held
            and held.unified == unified
            and held.cells >= cells
            and (held.sequences >= sequences if unified else held.sequences == sequences)
        ):
            return held
        self.close()
        self._context = Context(self._model, cells, _UBATCH, _UBATCH, sequences, unified=unified)
        return self._context

    def _scorer_in(self, context: Context) -> Scorer:
        """The one that knows what the context's cache holds."""
        if self._scorer is None or self._scorer.context is not context:
            self._scorer = Scorer(context)
        return self._scorer

    def close(self) -> None:
        if self._context:
            self._context.close()
        self._context = self._scorer = None
