"""An lm-eval language model that keeps every answer as soon as it has it, so that a killed evaluation goes on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lm_eval.api.model import LM
from lm_eval.models.utils import normalize_gen_kwargs

from quantlab.errors import CellFailure
from quantlab.progress import Step
from quantlab.workspace.items import Items, key_of

BLOCK_REQUESTS = 64


class ResumingLM(LM):  # type: ignore[misc]
    """Wraps another LM: answered requests come from their task's `items`, new ones are asked in blocks and added.

    A request's key is its kind, its arguments and `settings` (a hash of all else that decides the answer). Sampled
    generations are never kept.
    """

    def __init__(self, lm: Any, items: Mapping[str, Items], chosen: Mapping[str, Sequence[int]], settings: str, step: Step) -> None:
        """`chosen` are each task's items, in the order in which lm-eval numbers them."""
        super().__init__()
        self._lm, self._items, self._chosen, self._settings, self._step = lm, items, chosen, settings, step
        self.cut: dict[str, int] = {}
        """By task: items that were longer than the context and were cut."""

    def _answer(self, kind: str, requests: Sequence[Any], ask: Callable[[list[Any]], list[Any]]) -> list[Any]:
        keys = [key_of(self._settings, kind, request.args) for request in requests]
        sampled = [kind == "generate_until" and bool(request.args[1].get("do_sample")) for request in requests]
        fresh: dict[int, Any] = {}
        done = [None if sampled[i] else self._items[requests[i].task_name].get(key) for i, key in enumerate(keys)]
        open_ = [i for i, value in enumerate(done) if value is None]
        self._step.total(len(requests))
        for task, count in cut_items(self._lm, kind, requests).items():
            self.cut[task] = self.cut.get(task, 0) + count
        self._step.advance(len(requests) - len(open_))
        for begin in range(0, len(open_), BLOCK_REQUESTS):
            block = open_[begin : begin + BLOCK_REQUESTS]
            answers = ask([requests[i] for i in block])
            for i, answer in zip(block, answers, strict=True):
                self._require_finite(answer, requests[i])
            fresh.update(zip(block, answers, strict=True))
            for task in {requests[i].task_name for i in block}:
                kept = [i for i in block if requests[i].task_name == task and not sampled[i]]
                self._items[task].add({keys[i]: _plain(fresh[i]) for i in kept})
            self._step.advance(len(block))
        return [fresh[i] if i in fresh else _restored(done[i]) for i in range(len(requests))]

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        return self._answer("loglikelihood", requests, lambda block: self._lm.loglikelihood(block, disable_tqdm=True))

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        return self._answer("loglikelihood_rolling", requests, lambda block: self._lm.loglikelihood_rolling(block, disable_tqdm=True))

    def generate_until(self, requests: list[Any]) -> list[str]:
        return self._answer("generate_until", requests, lambda block: self._lm.generate_until(block, disable_tqdm=True))

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return str(self._lm.apply_chat_template(chat_history, add_generation_prompt))

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        template: str | None = self._lm.chat_template(chat_template)
        return template

    def _require_finite(self, answer: Any, request: Any) -> None:
        """Raise CellFailure for a log-likelihood that is no finite number, with the item."""
        value = answer[0] if isinstance(answer, tuple) else answer
        if isinstance(value, float) and not math.isfinite(value):
            item = self._chosen[request.task_name][request.doc_id]
            raise CellFailure(
                "broken_checkpoint", f"the log-likelihood of item {item} of {request.task_name} is {value}, not a finite number"
            )

    @property
    def tokenizer_name(self) -> str:
        return str(self._lm.tokenizer_name)


def cut_items(lm: Any, kind: str, requests: Sequence[Any]) -> dict[str, int]:
    """How many items of each task are longer than the model's context: lm-eval cuts them from the left without a word.

    A continuation's last token is no input, so one token more than the context fits; a prompt leaves room for the
    answer; a rolling log-likelihood goes over the document in windows and cuts nothing.
    """
    found: dict[str, set[int]] = {}
    if kind == "loglikelihood_rolling":
        return {}
    for request in requests:
        text, longest = str(request.args[0]), int(lm.max_length)
        if kind == "loglikelihood":
            text, longest = text + str(request.args[1]), longest + 1
        else:
            longest -= int(normalize_gen_kwargs(request.args[1], lm.max_gen_toks)["max_gen_toks"])
        # a token has a byte at the least, so that a short text needs no tokenizer
        if len(text.encode()) + 1 > longest and len(lm.tok_encode(text)) > longest:
            found.setdefault(request.task_name, set()).add(request.doc_id)
    return {task: len(items) for task, items in found.items()}


def _plain(answer: Any) -> Any:
    """An answer as JSON keeps it: (log-likelihood, greedy) as a list of a float and a bool."""
    return [float(answer[0]), bool(answer[1])] if isinstance(answer, tuple) else answer


def _restored(value: Any) -> Any:
    return (value[0], value[1]) if isinstance(value, list) else value
