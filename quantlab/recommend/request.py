"""Define a request: candidates, what can be limited, and how one limit is judged on one candidate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from quantlab.numbers import significant
from quantlab.recommend.quantity import UNKNOWN, Outcome, Quantity, exact, judge, quantity_text, unknown


class Candidate(NamedTuple):
    """One variant of one model on one device, or behind an API."""

    model: str
    variant: str
    device: str = ""
    drop_points: Quantity = UNKNOWN
    """Accuracy that quantization costs, in percentage points."""
    divergence_nats: Quantity = UNKNOWN
    decode_tokens_per_second: Quantity = UNKNOWN
    """Of one sequence."""
    first_token_seconds: Quantity = UNKNOWN
    memory_bytes: Quantity = UNKNOWN
    """Of the fullest GPU, at the planned context."""
    dollars_per_million: Quantity = UNKNOWN
    """Per million tokens."""
    context_tokens: int | None = None
    """The longest context that it serves: the model's own, or what fits the device where that is shorter."""
    licence: str | None = None
    parameters: int | None = None
    scores: Mapping[str, Quantity] = {}
    """Published benchmark scores in per cent, by use."""
    not_parallel: str = ""
    """Why the GPUs cannot share its layers; "" where they can, or its engine never does."""


class ModelRequest(NamedTuple):
    """What is asked for; a limit that is None does not matter."""

    context_tokens: int = 0
    use: str | None = None
    """code, chat, rag, long-context or edge: whose published scores decide."""
    max_drop_points: float | None = None
    min_tokens_per_second: float | None = None
    max_first_token_seconds: float | None = None
    max_memory_bytes: float | None = None
    """Of one GPU."""
    max_dollars_per_million: float | None = None
    licences: tuple[str, ...] = ()
    """Any of them; () for any at all."""
    certain: bool = False
    """Only candidates whose limits are all met."""


class Aspect(NamedTuple):
    """Something that a request can limit."""

    name: str
    what: str
    """In words, as a reader says it."""
    at_most: bool
    bound: Callable[[ModelRequest], float | None]
    of: Callable[[Candidate], Quantity]
    text: Callable[[float], str]


class Limit(NamedTuple):
    """One limit of a request."""

    aspect: Aspect
    bound: float

    @property
    def name(self) -> str:
        return self.aspect.name

    @property
    def text(self) -> str:
        """The bound with its side, in words."""
        return f"at {'most' if self.aspect.at_most else 'least'} {self.aspect.text(self.bound)}"


class JudgedLimit(NamedTuple):
    """One limit on one candidate."""

    limit: Limit
    quantity: Quantity
    outcome: Outcome

    @property
    def reason(self) -> str:
        """In words."""
        aspect, quantity = self.limit.aspect, self.quantity
        if quantity.value is None:
            return f"{aspect.what} is not known" + (f" ({quantity.source})" if quantity.source else "")
        verb = {"met": "is", "open": "may not be", "failed": "is not"}[self.outcome]
        return (
            f"{aspect.what} {verb} {self.limit.text}: {quantity_text(quantity, aspect.text)}, {quantity.kind}"
        )


def limits_of(request: ModelRequest) -> list[Limit]:
    return [Limit(aspect, bound) for aspect in ASPECTS if (bound := aspect.bound(request)) is not None]


def judge_limit(limit: Limit, candidate: Candidate) -> JudgedLimit:
    quantity = limit.aspect.of(candidate)
    return JudgedLimit(limit, quantity, judge(quantity, limit.bound, limit.aspect.at_most))


def _context(candidate: Candidate) -> Quantity:
    tokens = candidate.context_tokens
    return (
        exact(tokens, "estimated") if tokens is not None else unknown("no context length is in the catalogue")
    )


ASPECTS = (
    Aspect(
        "context", "the context", False, lambda r: r.context_tokens or None, _context, "{:,.0f} tokens".format
    ),
    Aspect(
        "memory",
        "the memory",
        True,
        lambda r: r.max_memory_bytes,
        lambda c: c.memory_bytes,
        lambda v: f"{v / 1e9:.2f} GB",
    ),
    Aspect(
        "drop",
        "the drop",
        True,
        lambda r: r.max_drop_points,
        lambda c: c.drop_points,
        lambda v: f"{v:.3g} point{'s' * (v != 1)}",
    ),
    Aspect(
        "speed",
        "decoding",
        False,
        lambda r: r.min_tokens_per_second,
        lambda c: c.decode_tokens_per_second,
        lambda v: f"{significant(v)} tokens/s",
    ),
    Aspect(
        "latency",
        "the first token",
        True,
        lambda r: r.max_first_token_seconds,
        lambda c: c.first_token_seconds,
        "{:.3g} s".format,
    ),
    Aspect(
        "price",
        "the price",
        True,
        lambda r: r.max_dollars_per_million,
        lambda c: c.dollars_per_million,
        lambda v: f"{significant(v)} dollars per million tokens",
    ),
)
"""All that a request can limit, in the order of the reasons."""
