"""Save every answer of an lm-eval language model at once, so that a killed evaluation resumes."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lm_eval.api.model import LM
from lm_eval.models.utils import normalize_gen_kwargs

from quantlab.errors import CellFailure
from quantlab.evaluation.bad_items import failure_of, is_of_the_cell, reason_of
from quantlab.progress import Step
from quantlab.workspace.items import Items, key_of

BLOCK_REQUESTS = 64


class ResumingLM(LM):  # type: ignore[misc]
    """Wraps another LM: answered requests come from their task's `items`, new ones are asked in blocks and
    added.

    A request's key is its kind, its arguments and `settings` (a hash of all else that decides the answer). A
    sampled answer's key has its item and the number of its repeat too, and its seed follows from its block's
    keys: repeats differ, and a run that was killed gives what a whole one gives or another independent draw,
    never a copy."""

    def __init__(
        self,
        lm: Any,
        items: Mapping[str, Items],
        chosen: Mapping[str, Sequence[int]],
        settings: str,
        step: Step,
    ) -> None:
        """`chosen` are each task's items, in the order in which lm-eval numbers them."""
        super().__init__()
        self._lm, self._items, self._chosen, self._settings, self._step = lm, items, chosen, settings, step
        self.cut: dict[str, int] = {}
        """By task: items that were longer than the context and were cut."""
        self.truncated: dict[tuple[str, int], list[bool]] = {}
        """By task and item, where it is known: which of its generated answers the limit on tokens ended."""

    def _answer(self, kind: str, requests: Sequence[Any]) -> list[Any]:
        """The answers as they are kept. Raises CellFailure for an item that has none, with all others of its
        block kept."""
        keys = self._keys(kind, requests)
        kept = {
            i: value
            for i, r in enumerate(requests)
            if (value := self._items[r.task_name].get(keys[i])) is not None
        }
        open_ = [i for i in range(len(requests)) if i not in kept]
        self._step.total(len(requests))
        self._count_cut(kind, requests)
        self._step.advance(len(kept))
        for begin in range(0, len(open_), BLOCK_REQUESTS):
            block = open_[begin : begin + BLOCK_REQUESTS]
            bad: list[CellFailure] = []
            answers = self._ask(kind, block, requests, keys, bad)
            for task in {requests[i].task_name for i in answers}:
                self._items[task].add(
                    {keys[i]: answer for i, answer in answers.items() if requests[i].task_name == task}
                )
            if bad:
                more = f" (and {len(bad) - 1} more of these {len(block)} requests)" if len(bad) > 1 else ""
                raise CellFailure(bad[0].kind, bad[0].reason + more)
            kept |= answers
            self._step.advance(len(block))
        return [kept[i] for i in range(len(requests))]

    def _keys(self, kind: str, requests: Sequence[Any]) -> list[str]:
        asked = Counter[str]()
        keys = []
        for request in requests:
            key = key_of(self._settings, kind, request.args)
            if kind == "generate_until" and is_sampled(request):
                copy = key_of(key, request.task_name, self._item(request))
                asked[copy] += 1
                key = key_of(copy, asked[copy])
            keys.append(key)
        return keys

    def _ask(
        self,
        kind: str,
        block: Sequence[int],
        requests: Sequence[Any],
        keys: Sequence[str],
        bad: list[CellFailure],
    ) -> dict[int, Any]:
        """Answers by request; where lm-eval fails on several, on each half, until those that it fails on
        stand alone in `bad`."""
        part = [requests[i] for i in block]
        if kind == "generate_until" and any(map(is_sampled, part)):
            _seed(keys[i] for i in block)
        try:
            answers = self._ask_all(kind, part)
        except Exception as error:
            if is_of_the_cell(error):
                raise
            if len(block) == 1:
                bad.append(failure_of(error, self._name(part[0]), reason_of(self._lm, kind, part[0])))
                return {}
            half = len(block) // 2
            return self._ask(kind, block[:half], requests, keys, bad) | self._ask(
                kind, block[half:], requests, keys, bad
            )
        bad += [
            _not_finite(answer, self._name(request))
            for answer, request in zip(answers, part, strict=True)
            if not _is_finite(answer)
        ]
        return {i: answer for i, answer in zip(block, answers, strict=True) if _is_finite(answer)}

    def _ask_all(self, kind: str, part: list[Any]) -> list[Any]:
        """Answers as JSON keeps them: [log-likelihood, greedy], a log-likelihood, or [text, whether the limit
        ended it]."""
        if kind == "loglikelihood":
            return [
                [float(value), bool(greedy)]
                for value, greedy in self._lm.loglikelihood(part, disable_tqdm=True)
            ]
        if kind == "loglikelihood_rolling":
            return [float(value) for value in self._lm.loglikelihood_rolling(part, disable_tqdm=True)]
        texts = self._lm.generate_until(part, disable_tqdm=True)
        return [
            list(pair) for pair in zip(texts, getattr(self._lm, "truncated", [None] * len(part)), strict=True)
        ]

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        return [(value, greedy) for value, greedy in self._answer("loglikelihood", requests)]

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        return self._answer("loglikelihood_rolling", requests)

    def generate_until(self, requests: list[Any]) -> list[str]:
        answers = self._answer("generate_until", requests)
        for request, (_, truncated) in zip(requests, answers, strict=True):
            if truncated is not None:
                self.truncated.setdefault((request.task_name, self._item(request)), []).append(truncated)
        return [text for text, _ in answers]

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        return str(self._lm.apply_chat_template(chat_history, add_generation_prompt))

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        template: str | None = self._lm.chat_template(chat_template)
        return template

    def _count_cut(self, kind: str, requests: Sequence[Any]) -> None:
        cut_items: dict[str, set[int]] = {}
        for request in requests:
            try:
                cut = is_cut(self._lm, kind, request)
            except Exception as error:
                if is_of_the_cell(error):
                    raise
                continue  # the same text is asked below, where what fails is named and the others are kept
            if cut:
                cut_items.setdefault(request.task_name, set()).add(request.doc_id)
        for task, items in cut_items.items():
            self.cut[task] = self.cut.get(task, 0) + len(items)

    def _item(self, request: Any) -> int:
        """The item's number among all of its task."""
        return int(self._chosen[request.task_name][request.doc_id])

    def _name(self, request: Any) -> str:
        return f"item {self._item(request)} of {request.task_name}"

    @property
    def tokenizer_name(self) -> str:
        return str(self._lm.tokenizer_name)


def is_sampled(request: Any) -> bool:
    """Whether a generation is sampled, as lm-eval decides it: a temperature is enough."""
    return bool(normalize_gen_kwargs(request.args[1])["do_sample"])


def is_cut(lm: Any, kind: str, request: Any) -> bool:
    """Whether a request is longer than the model's context: lm-eval cuts it from the left without a word.

    A continuation's last token is never fed to the model, so one token more than the context fits; a
    prompt leaves room for the answer; a rolling log-likelihood goes over the document in windows and cuts
    nothing."""
    if kind == "loglikelihood_rolling":
        return False
    text, longest = str(request.args[0]), int(lm.max_length)
    if kind == "loglikelihood":
        text, longest = text + str(request.args[1]), longest + 1
    else:
        longest -= int(normalize_gen_kwargs(request.args[1], lm.max_gen_toks)["max_gen_toks"])
    # a token has a byte at the least, so that a short text needs no tokenizer
    return len(text.encode()) + 1 > longest and len(lm.tok_encode(text)) > longest


def _seed(keys: Iterable[str]) -> None:
    """Sampling in a process of its own stream: no two blocks draw from the same one."""
    from lm_eval.utils import set_torch_seed

    set_torch_seed(int.from_bytes(hashlib.sha256("".join(keys).encode()).digest()[:4]))


def _is_finite(answer: Any) -> bool:
    value = answer[0] if isinstance(answer, list) else answer
    return not isinstance(value, float) or math.isfinite(value)


def _not_finite(answer: Any, name: str) -> CellFailure:
    value = answer[0] if isinstance(answer, list) else answer
    return CellFailure("broken_checkpoint", f"{name}: the log-likelihood is {value}, not a finite number")
