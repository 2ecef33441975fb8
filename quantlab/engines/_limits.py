"""Find the generated answers that the limit on tokens ended: lm-eval's language models return only text."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any


class Limits:
    """Collects, while an lm-eval model generates, whether each answer was cut, in the order in which answers
    are made."""

    def __init__(self) -> None:
        self.made: list[bool] = []
        self._contexts: list[str] = []

    def add_partial(self, kind: str, request: Any, answer: Any) -> None:
        """lm-eval's hook for its own cache: it is told of every answer as soon as it is made."""
        self._contexts.append(str(request[0]))

    def generate(
        self, lm: Any, ask: Callable[[], list[str]], requests: list[Any]
    ) -> tuple[list[str], list[bool]]:
        """The texts, and by request whether the limit ended it; copies of one request stay in their order."""
        self.made, self._contexts = [], []
        usual, lm.cache_hook = lm.cache_hook, self
        try:
            texts = ask()
        finally:
            lm.cache_hook = usual
        by_context: dict[str, deque[bool]] = defaultdict(deque)
        for context, truncated in zip(self._contexts, self.made, strict=True):
            by_context[context].append(truncated)
        return texts, [by_context[str(request.args[0])].popleft() for request in requests]
