"""lm-eval's own API models over our requests: its prompts, payloads and parsing; our key, redirects and checks."""

from __future__ import annotations

import copy
from typing import Any

from quantlab.endpoint.echo import scored
from quantlab.endpoint.posting import post
from quantlab.endpoint.secrets import Key
from quantlab.errors import CellFailure

_LONGEST_TOKENS = 10**6
"""No limit of ours: a prompt that is too long for the server is refused by it, and not cut without a word."""


def chat_model(url: str, model: str, key: Key | None, timeout_seconds: float) -> Any:
    """lm-eval's `local-chat-completions`: generative tasks through the server's own chat template."""
    from lm_eval.models.openai_completions import LocalChatCompletion

    class Chat(LocalChatCompletion):  # type: ignore[misc]  # lm-eval has no types
        def model_call(self, messages: Any, *, generate: bool = True, gen_kwargs: Any = None, **kwargs: Any) -> dict[str, Any]:
            return post(url, _payload(self, messages, generate, gen_kwargs, kwargs), key, timeout_seconds)

    return Chat(base_url=url, model=model, eos_string="", max_length=_LONGEST_TOKENS)


def completions_model(url: str, model: str, key: Key | None, timeout_seconds: float, tokenizer: str | None) -> Any:
    """lm-eval's `local-completions`; with a tokenizer it can score continuations, too.

    Requests go as text, and the server's count of tokens is compared with the tokenizer's for every item.
    """
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    class Completions(LocalCompletionsAPI):  # type: ignore[misc]  # lm-eval has no types
        def model_call(self, messages: Any, *, generate: bool = True, gen_kwargs: Any = None, **kwargs: Any) -> dict[str, Any]:
            return post(url, _payload(self, messages, generate, gen_kwargs, kwargs), key, timeout_seconds)

        @staticmethod
        def parse_logprobs(outputs: Any, tokens: Any = None, ctxlens: Any = None, **kwargs: Any) -> list[tuple[float, bool]]:
            return continuations(outputs if isinstance(outputs, list) else [outputs], tokens, ctxlens)

    backend = "huggingface" if tokenizer else "none"
    return Completions(
        base_url=url,
        model=model,
        tokenizer=tokenizer,
        tokenizer_backend=backend,
        tokenized_requests=False,
        eos_string=None if tokenizer else "",
        max_length=_LONGEST_TOKENS,
    )


def continuations(outputs: list[dict[str, Any]], tokens: list[list[int]], context_lengths: list[int]) -> list[tuple[float, bool]]:
    """Log-probability of each continuation, and whether each of its tokens is the most likely one.

    `tokens` are those of context and continuation by the tokenizer. Raises CellFailure where the server counts others: a
    begin token before them is the one difference that is allowed. lm-eval's own parser takes the last entry for a
    generated token without looking, and would drop a token of the continuation where the model ends at once.
    """
    choices = [(output, choice) for output in outputs for choice in sorted(output["choices"], key=lambda c: int(c["index"]))]
    found = []
    for (output, choice), ids, context in zip(choices, tokens, context_lengths, strict=True):
        score = scored(output, choice)
        added = score.prompt_tokens - len(ids)
        if added not in (0, 1):
            raise CellFailure(
                "unsupported",
                f"the server makes {score.prompt_tokens} tokens of a text that has {len(ids)} by the tokenizer that was named",
            )
        entries = range(context + added, score.prompt_tokens)
        logprobs, best = [score.token_logprobs[i] for i in entries], [score.top_logprobs[i] for i in entries]
        if any(value is None for value in logprobs) or any(not top for top in best):
            raise CellFailure("unsupported", "the server leaves out the log-probability of a token")
        greedy = all(value == max(top.values()) for value, top in zip(logprobs, best, strict=True) if top)
        found.append((sum(value for value in logprobs if value is not None), greedy))
    return found


def _payload(lm: Any, messages: Any, generate: bool, gen_kwargs: Any, more: dict[str, Any]) -> dict[str, Any]:
    payload: dict[str, Any] = lm._create_payload(
        lm.create_message(messages), generate=generate, gen_kwargs=copy.deepcopy(gen_kwargs), seed=lm._seed, eos=lm.eos_string, **more
    )
    stops = [stop for stop in payload.get("stop") or [] if stop]
    return {**payload, "stop": stops} if stops else {name: value for name, value in payload.items() if name != "stop"}
