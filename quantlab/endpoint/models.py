"""Run lm-eval's API models through quantlab's requests.

Prompts and payloads are lm-eval's; key, limits, retries and checks are quantlab's.

An item without a usable answer is recorded as lost. lm-eval then scores the others alone: `Collected` gives
their answers to it a second time."""

from __future__ import annotations

import collections
import copy
from collections.abc import Callable, Sequence
from typing import Any

from quantlab.endpoint.answers import NO_TOKEN, ItemAnswer, continuation, generated
from quantlab.endpoint.asking import Job, Server, ask_all
from quantlab.endpoint.keeping import TaskAnswers
from quantlab.endpoint.protocols import LimitField
from quantlab.errors import CellFailure

_LONGEST_TOKENS = 10**6
"""So large that lm-eval cuts no prompt: the server itself refuses one that is too long for it."""
_MOST_STOPS = 4
"""What OpenAI's protocol takes; the others are applied to the answer."""


class Collected:
    """The answers to a task's items: asked for once, then given again for the items that are kept."""

    def __init__(
        self,
        server: Server,
        chosen: Sequence[int],
        advance: Callable[[], None],
        kept: TaskAnswers | None = None,
    ) -> None:
        self.server, self.chosen, self._advance, self.kept = server, list(chosen), advance, kept
        self.lost: dict[int, str] = {}
        """Why an item has no answer, by its number in the task."""
        self._answers: dict[tuple[int, int], list[ItemAnswer]] = {}
        self._replays = False

    def keep(self, kept: Sequence[int]) -> None:
        """From now on give again what was answered to these items."""
        self.chosen, self._replays = list(kept), True

    def answers(self) -> list[ItemAnswer]:
        """All answers to the items that are not lost."""
        return [
            answer
            for (item, _), repeated in self._answers.items()
            if item not in self.lost
            for answer in repeated
        ]

    def of(self, requests: Sequence[Any], job: Callable[[Any], Job], placeholder: Any) -> list[Any]:
        """The answer to each of lm-eval's requests; the placeholder where there is none."""
        keys = [(self.chosen[request.doc_id], int(request.idx)) for request in requests]
        if not self._replays:
            self._ask(requests, keys, job, placeholder)
        given, values = collections.Counter[tuple[int, int]](), []
        for key in keys:  # a repeated request has an answer of its own
            values.append(self._answers[key][given[key]].value)
            given[key] += 1
        return values

    def _ask(
        self,
        requests: Sequence[Any],
        keys: Sequence[tuple[int, int]],
        job: Callable[[Any], Job],
        placeholder: Any,
    ) -> None:
        made = [_made(job, request) for request in requests]
        jobs = [one for one in made if isinstance(one, Job)]
        answered = iter(ask_all(self.server, jobs, self._advance, self.kept))
        for key, one in zip(keys, made, strict=True):
            answer = next(answered) if isinstance(one, Job) else one
            if isinstance(answer, CellFailure):
                self.lost.setdefault(key[0], answer.reason)
                answer = ItemAnswer(placeholder)
            self._answers.setdefault(key, []).append(answer)


def _made(job: Callable[[Any], Job], request: Any) -> Job | CellFailure:
    try:
        return job(request)
    except CellFailure as failure:
        return failure


def chat_model(collected: Collected, model: str, limit_field: LimitField) -> Any:
    """lm-eval's `local-chat-completions`: generative tasks through the server's own chat template."""
    from lm_eval.models.openai_completions import LocalChatCompletion

    class Chat(LocalChatCompletion):  # type: ignore[misc]  # lm-eval has no types
        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
            return collected.of(requests, lambda request: _generation(self, request, limit_field, True), "")

    return Chat(base_url=collected.server.url, model=model, eos_string="", max_length=_LONGEST_TOKENS)


def completions_model(
    collected: Collected, model: str, limit_field: LimitField, tokenizer: str | None
) -> Any:
    """lm-eval's `local-completions`; with a tokenizer it can score continuations, too.

    Requests go as text, and the server's count of tokens is compared with the tokenizer's for every item.
    """
    return _completions_class(collected, limit_field)(
        base_url=collected.server.url,
        model=model,
        tokenizer=tokenizer,
        tokenizer_backend="huggingface" if tokenizer else "none",
        tokenized_requests=False,
        eos_string=None if tokenizer else "",
        max_length=_LONGEST_TOKENS,
    )


def _completions_class(collected: Collected, limit_field: LimitField) -> Any:
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    class Completions(LocalCompletionsAPI):  # type: ignore[misc]  # lm-eval has no types
        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
            return collected.of(requests, lambda request: _generation(self, request, limit_field, False), "")

        def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> list[tuple[float, bool]]:
            return collected.of(requests, self._pair, (0.0, False))

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
            return collected.of(requests, self._text, 0.0)

        def _loglikelihood_tokens(self, requests: Any, **kwargs: Any) -> Any:
            return requests  # as lm-eval cuts context and continuation; they are sent by `_pair`

        def _pair(self, request: Any) -> Job:
            if not self.tok_encode(request.args[1], add_special_tokens=False):
                raise CellFailure("unsupported", NO_TOKEN)
            ((_, context, rest),) = super().loglikelihood([request], disable_tqdm=True)
            if not rest:  # its tokens are a part of the context's last one
                raise CellFailure("unsupported", NO_TOKEN)
            return _scoring(self, context, rest, lambda scores: scores)

        def _text(self, request: Any) -> Job:
            ids = self.tok_encode(request.args[0])
            if not ids:
                raise CellFailure("unsupported", "a text without a token has no log-probability")
            return _scoring(self, [self.prefix_token_id], ids, lambda scores: scores[0])

    return Completions


def _scoring(lm: Any, context: list[int], rest: list[int], value: Callable[[tuple[float, bool]], Any]) -> Job:
    """Ask for the log-probability of `rest` after `context`; `value` takes what lm-eval wants from it."""
    ids = [*context, *rest]
    return Job(
        _payload(lm, [ids], False, None),
        lambda answer: ItemAnswer(value(continuation(answer, ids, len(context)))),
    )


def _generation(lm: Any, request: Any, limit_field: LimitField, chat: bool) -> Job:
    if len(request.args) != 2:
        raise CellFailure("unsupported", "the item has images or sound, which are not sent")
    prompt, settings = request.args
    until = settings.get("until") or []
    stops = [stop for stop in ([until] if isinstance(until, str) else until) if stop]
    body = _payload(lm, [prompt], True, settings)
    body[limit_field] = body.pop("max_tokens")
    return Job(
        body | ({"stop": stops[:_MOST_STOPS]} if stops else {}), lambda answer: generated(answer, chat, stops)
    )


def _payload(lm: Any, messages: Any, generate: bool, gen_kwargs: Any) -> dict[str, Any]:
    """lm-eval's own payload, without its stop strings."""
    payload: dict[str, Any] = lm._create_payload(
        lm.create_message(messages),
        generate=generate,
        gen_kwargs=copy.deepcopy(gen_kwargs),
        seed=lm._seed,
        eos=lm.eos_string,
    )
    return {name: value for name, value in payload.items() if name != "stop"}
