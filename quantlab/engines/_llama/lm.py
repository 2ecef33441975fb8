"""Give lm-eval a language model over llama.cpp that answers as HFLM does on the same weights.

Tokens are the Hugging Face tokenizer's, so that both engines see the same ids. Generation is greedy only.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lm_eval import utils
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import (
    _add_special_kwargs,
    handle_stop_sequences,
    has_bos_prefix,
    normalize_gen_kwargs,
    postprocess_generated_text,
)

from quantlab.engines._llama.generate import generate, read_rules
from quantlab.engines._llama.library import Context, Model
from quantlab.engines._llama.score import MAX_CHOICES, Scorer, packs, questions
from quantlab.errors import CellFailure

_UBATCH = 512
_STEP = 256
_SHOWN = 80


class LlamaLM(TemplateLM):  # type: ignore[misc]
    """See `lm_eval.api.model.TemplateLM`."""

    def __init__(self, model: Model, tokenizer: Any, folder: Path, batch_size: int) -> None:
        """`batch_size` sequences at a time; `folder` holds the tokenizer and the generation config."""
        super().__init__()
        self.tokenizer, self.batch_size = tokenizer, batch_size
        self._model, self._rules = model, read_rules(folder, tokenizer.eos_token_id)
        self._context: Context | None = None
        self._scorer: Scorer | None = None
        self.truncated: list[bool] = []
        """Of the last `generate_until`, by request: whether the limit on tokens ended the answer."""

    @property
    def eot_token_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        return int(
            self.tokenizer.bos_token_id
            if self.tokenizer.bos_token_id is not None
            else self.tokenizer.eos_token_id
        )

    @property
    def max_length(self) -> int:
        """The context that the model was trained for, which transformers calls max_position_embeddings."""
        return self._model.trained_context

    @property
    def max_gen_toks(self) -> int:
        return 256

    @property
    def tokenizer_name(self) -> str:
        return str(self.tokenizer.name_or_path.replace("/", "__"))

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        import jinja2

        def apply(messages: list[dict[str, str]]) -> str:
            rest = {
                "add_generation_prompt": add_generation_prompt,
                "continue_final_message": not add_generation_prompt,
            }
            return str(self.tokenizer.apply_chat_template(messages, tokenize=False, **rest))

        try:
            return apply(chat_history)
        except jinja2.exceptions.TemplateError:  # a template without a system role
            return apply([message for message in chat_history if message["role"] != "system"])

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        special = _add_special_kwargs(add_special_tokens, None)
        if add_special_tokens is None and has_bos_prefix(string, self.tokenizer.decode(self.prefix_token_id)):
            special["add_special_tokens"] = False
        return list(self.tokenizer.encode(string, **special))

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

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        totals = []
        for (string,) in (request.args for request in requests):
            windows = utils.get_rolling_token_windows(
                token_list=self.tok_encode(string),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            parts = [(None, *utils.make_disjoint_window(window)) for window in windows]
            totals.append(sum(pair[0] for pair in self._loglikelihood_tokens(parts)))
            self.cache_hook.add_partial("loglikelihood_rolling", (string,), totals[-1])
        return totals

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        texts, self.truncated = [""] * len(requests), [False] * len(requests)
        order = sorted(
            range(len(requests)), key=lambda i: (repr(requests[i].args[1]), -len(requests[i].args[0]))
        )
        groups: list[list[int]] = []
        for i in order:
            same = (
                groups
                and len(groups[-1]) < self.batch_size
                and requests[groups[-1][0]].args[1] == requests[i].args[1]
            )
            if same:
                groups[-1].append(i)
            else:
                groups.append([i])
        for group in groups:
            settings = requests[group[0]].args[1]
            for i, made in zip(
                group, self._generate([requests[i].args[0] for i in group], settings), strict=True
            ):
                texts[i], self.truncated[i] = made
                self.cache_hook.add_partial("generate_until", (requests[i].args[0], settings), texts[i])
        return texts

    @property
    def end_ids(self) -> frozenset[int]:
        """Tokens that end an answer."""
        return self._rules.end_ids

    def continuations(self, prompts: list[str], limit: int) -> list[list[int]]:
        """Greedy token ids after each prompt, at most so many, an end token included. Raises CellFailure."""
        return self._continue(prompts, limit, lambda tokens: False)

    def _generate(self, contexts: list[str], settings: dict[str, Any]) -> list[tuple[str, bool]]:
        """Each answer, and whether the limit on tokens ended it."""
        known = normalize_gen_kwargs(settings, self.max_gen_toks)
        if known.get("do_sample"):
            raise CellFailure(
                "unsupported", "the llama_cpp engine generates greedily: the task asks for sampling"
            )
        until = handle_stop_sequences(known.get("until"), eos=self.tokenizer.decode(self.eot_token_id))
        limit = known["max_gen_toks"]
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
        texts = [self.tokenizer.decode(tokens, skip_special_tokens=True) for tokens in made]
        return [
            (postprocess_generated_text(text, until, None), truncated(tokens))
            for text, tokens in zip(texts, made, strict=True)
        ]

    def _continue(
        self, texts: list[str], limit: int, stopped: Callable[[list[int]], bool]
    ) -> list[list[int]]:
        if limit >= self.max_length:
            raise CellFailure(
                "unsupported",
                f"{limit} tokens of an answer are asked for, the model's context has {self.max_length}",
            )
        prompts = [self.tok_encode(text)[-(self.max_length - limit) :] for text in texts]
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
