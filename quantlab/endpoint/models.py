"""Run lm-eval's API models over quantlab's requests: its prompts and payloads; our key, limits, retries and
checks.

An item that is not answered well is noted as lost and the others are kept; `Collected` gives their answers
again, so that lm-eval scores those alone."""

from __future__ import annotations

import collections
import copy
from collections.abc import Callable, Sequence
from typing import Any

from quantlab.endpoint.answers import Answer, continuation, generated
from quantlab.endpoint.asking import Job, Server, ask_all
from quantlab.endpoint.protocols import LimitField
from quantlab.errors import CellFailure

_LONGEST_TOKENS = 10**6
"""No limit of ours: a prompt that is too long for the server is refused by it, and not cut without a word."""
_MOST_STOPS = 4
"""What OpenAI's protocol takes; the others are applied to the answer."""


class Collected:
    """The answers to a task's items: asked for once, then given again for the items that are kept."""

    def __init__(self, server: Server, chosen: Sequence[int], advance: Callable[[], None]) -> None:
        self.server, self.chosen, self._advance = server, list(chosen), advance
        self.lost: dict[int, str] = {}
        """Why an item has no answer, by its number in the task."""
        self._answers: dict[tuple[int, int], list[Answer]] = {}
        self._replays = False

    def keep(self, kept: Sequence[int]) -> None:
        """From now on give again what was answered to these items."""
        self.chosen, self._replays = list(kept), True

    def answers(self) -> list[Answer]:
        """All answers to the items that are not lost."""
        return [
            answer for (item, _), found in self._answers.items() if item not in self.lost for answer in found
        ]

    def of(self, requests: Sequence[Any], job: Callable[[Any], Job], placeholder: Any) -> list[Any]:
        """The answer to each of lm-eval's requests; the placeholder where there is none."""
        keys = [(self.chosen[request.doc_id], int(request.idx)) for request in requests]
        if not self._replays:
            self._ask(requests, keys, job, placeholder)
        given, found = collections.Counter[tuple[int, int]](), []
        for key in keys:  # a repeated request has an answer of its own
            found.append(self._answers[key][given[key]].value)
            given[key] += 1
        return found

    def _ask(
        self,
        requests: Sequence[Any],
        keys: Sequence[tuple[int, int]],
        job: Callable[[Any], Job],
        placeholder: Any,
    ) -> None:
        made = [_made(job, request) for request in requests]
        answered = iter(ask_all(self.server, [one for one in made if isinstance(one, Job)], self._advance))
        for key, one in zip(keys, made, strict=True):
            found = next(answered) if isinstance(one, Job) else one
            if isinstance(found, CellFailure):
                self.lost.setdefault(key[0], found.reason)
                found = Answer(placeholder)
            self._answers.setdefault(key, []).append(found)


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
                raise CellFailure(
                    "unsupported", "a continuation has no token of its own, so no log-probability"
                )
            ((_, context, rest),) = super().loglikelihood([request], disable_tqdm=True)
            return self._scoring(context, rest, pair=True)

        def _text(self, request: Any) -> Job:
            ids = self.tok_encode(request.args[0])
            if not ids:
                raise CellFailure("unsupported", "a text without a token has no log-probability")
            return self._scoring([self.prefix_token_id], ids, pair=False)

        def _scoring(self, context: list[int], rest: list[int], pair: bool) -> Job:
            ids = [*context, *rest]

            def read(answer: dict[str, Any]) -> Answer:
                found = continuation(answer, ids, len(context))
                return Answer(found if pair else found[0])

            return Job(_payload(self, [ids], False, None), read)

    return Completions(
        base_url=collected.server.url,
        model=model,
        tokenizer=tokenizer,
        tokenizer_backend="huggingface" if tokenizer else "none",
        tokenized_requests=False,
        eos_string=None if tokenizer else "",
        max_length=_LONGEST_TOKENS,
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
