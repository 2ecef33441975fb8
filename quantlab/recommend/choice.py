"""Choose among candidates: which model, at which variant, on which device, for a request.

`choose` is pure and quick: it reads no file, so a router can call it for every request. A limit is judged by
the whole interval of what is known: `met` where the interval lies inside, `failed` where it lies outside,
`open` otherwise and where nothing is known. An open limit does not reject (unless `certain` is asked for); it
is said, with what would settle it.

Order: what may not fit the memory comes after what does, and what the GPUs cannot share after what they can.
Models with a published score for the use come first, the higher the better, then the others by their number
of parameters. Of one model: the variant with the fewest open limits, then with a drop whose upper end is
known, the smallest lower end (the loss that is certain), the smallest measured divergence, the smallest upper
end, the highest speed, the least memory. Names decide last, so the order is total."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
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


class Request(NamedTuple):
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
    bound: Callable[[Request], float | None]
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


class Judged(NamedTuple):
    """One limit on one candidate."""

    limit: Limit
    quantity: Quantity
    outcome: Outcome

    @property
    def reason(self) -> str:
        """In words."""
        aspect, found = self.limit.aspect, self.quantity
        if found.value is None:
            return f"{aspect.what} is not known" + (f" ({found.source})" if found.source else "")
        verb = {"met": "is", "open": "may not be", "failed": "is not"}[self.outcome]
        return f"{aspect.what} {verb} {self.limit.text}: {quantity_text(found, aspect.text)}, {found.kind}"


class Ranked(NamedTuple):
    """A candidate that may serve the request."""

    candidate: Candidate
    judged: tuple[Judged, ...]
    use: str | None

    @property
    def open(self) -> tuple[Judged, ...]:
        """Limits of which it is not known whether they are met."""
        return tuple(each for each in self.judged if each.outcome == "open")

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it stands where it stands."""
        behind = (f"ranked behind: {self.candidate.not_parallel}",) if self.candidate.not_parallel else ()
        return (_ability_text(self.candidate, self.use), *behind, *(each.reason for each in self.judged))


class Rejected(NamedTuple):
    """A candidate that cannot serve the request."""

    candidate: Candidate
    failed: tuple[Judged, ...]
    """Empty where only its licence speaks against it."""
    licence: str = ""
    """Why its licence does."""

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it cannot."""
        return (*([self.licence] if self.licence else []), *(each.reason for each in self.failed))


class Change(NamedTuple):
    """What would make another candidate the first."""

    limit: str
    if_: str
    then: Candidate | None
    """None: nothing would be left."""


class Choice(NamedTuple):
    """The answer to a request."""

    ranked: tuple[Ranked, ...]
    rejected: tuple[Rejected, ...]
    changes: tuple[Change, ...]

    @property
    def best(self) -> Candidate | None:
        """The first; None where nothing serves the request."""
        return self.ranked[0].candidate if self.ranked else None


def choose(request: Request, candidates: Sequence[Candidate]) -> Choice:
    """Rank the candidates that may serve the request, best first, and say what would change the answer."""
    limits = _limits(request)
    ranked: list[tuple[tuple[object, ...], Ranked]] = []
    rejected: list[tuple[tuple[object, ...], Rejected]] = []
    for candidate in candidates:
        judged = tuple([_judged(limit, candidate) for limit in limits])
        bad = "failed" if not request.certain else "open"
        failed = tuple([each for each in judged if each.outcome in ("failed", bad)])
        licence = _licence(request, candidate)
        key = _key(candidate, [each.limit.name for each in judged if each.outcome == "open"], request.use)
        if failed or licence:
            rejected.append((key, Rejected(candidate, failed, licence)))
        else:
            ranked.append((key, Ranked(candidate, judged, request.use)))
    ranked.sort(key=lambda pair: pair[0])
    rejected.sort(key=lambda pair: pair[0])
    first = ranked[0][0] if ranked else None
    best = tuple([each for _, each in ranked])
    changes = (
        *_if_measured(best),
        *_if_relaxed([each for key, each in rejected if first is None or key < first]),
    )
    return Choice(best, tuple([each for _, each in rejected]), changes)


def _limits(request: Request) -> list[Limit]:
    return [Limit(aspect, bound) for aspect in ASPECTS if (bound := aspect.bound(request)) is not None]


def _judged(limit: Limit, candidate: Candidate) -> Judged:
    found = limit.aspect.of(candidate)
    return Judged(limit, found, judge(found, limit.bound, limit.aspect.at_most))


def _context(candidate: Candidate) -> Quantity:
    tokens = candidate.context_tokens
    return (
        exact(tokens, "estimated") if tokens is not None else unknown("no context length is in the catalogue")
    )


def _licence(request: Request, candidate: Candidate) -> str:
    if not request.licences or (candidate.licence or "").lower() in {
        name.lower() for name in request.licences
    }:
        return ""
    named = " or ".join(request.licences)
    return (
        f"its licence is {candidate.licence}, not {named}"
        if candidate.licence
        else f"its licence is not known to be {named}"
    )


def _key(candidate: Candidate, open_limits: Sequence[str], use: str | None) -> tuple[object, ...]:
    score = candidate.scores.get(use or "", UNKNOWN).value
    drop, speed, memory = (
        candidate.drop_points,
        candidate.decode_tokens_per_second.value,
        candidate.memory_bytes.value,
    )
    near = candidate.divergence_nats
    found = near.value is not None and near.kind in ("measured", "interpolated")
    return (
        "memory" in open_limits,  # what may not even load comes after all that does
        bool(candidate.not_parallel),  # and what leaves all GPUs but one idle after what does not
        score is None,
        -(score or 0.0),
        -(candidate.parameters or 0),
        candidate.model,
        len(open_limits),
        drop.high is None,
        max(
            0.0, drop.low or 0.0
        ),  # the loss that is certain: a middle would let the noise of few items decide
        (near.value or 0.0) if found else math.inf,
        drop.high if drop.high is not None else math.inf,
        -(speed or 0.0),
        memory if memory is not None else math.inf,
        candidate.variant,
        candidate.device,
    )


def _ability_text(candidate: Candidate, use: str | None) -> str:
    score = candidate.scores.get(use or "", UNKNOWN)
    if score.value is not None:
        return f"{score.value:.1f} % for {use}, quoted ({score.source})"
    size = (
        f"ranked by its {candidate.parameters / 1e9:,.3g}B parameters"
        if candidate.parameters
        else "ranked last, its size is not known"
    )
    return f"{score.source or (f'no published score for {use}' if use else 'no use was named')}: {size}"


def _if_measured(ranked: Sequence[Ranked]) -> list[Change]:
    """Which candidate is first where an open limit of the first one turns out to fail."""
    if not ranked:
        return []
    changes = []
    first = ranked[0]
    name = f"{first.candidate.model} {first.candidate.variant}"
    for each in first.open:
        # the next one that does not hang on the same unknown
        after = next(
            (r.candidate for r in ranked[1:] if all(other.limit.name != each.limit.name for other in r.open)),
            None,
        )
        changes.append(
            Change(
                each.limit.name,
                f"{each.limit.aspect.what} of {name} turns out not to be {each.limit.text}",
                after,
            )
        )
    return changes


def _if_relaxed(better: Sequence[Rejected]) -> list[Change]:
    """For each limit the smallest loosening that makes another candidate the first."""
    nearest: dict[str, tuple[float, Limit, Candidate]] = {}
    for each in better:
        if len(each.failed) != 1 or each.licence:
            continue
        limit, found, _ = each.failed[0]
        needed = found.high if limit.aspect.at_most else found.low
        if needed is None:
            continue
        name, distance = limit.name, abs(needed - limit.bound)
        if name not in nearest or distance < abs(nearest[name][0] - limit.bound):
            nearest[name] = (needed, limit, each.candidate)
    return [
        Change(
            name,
            f"{limit.aspect.text(needed)} were asked for instead of {limit.aspect.text(limit.bound)}",
            candidate,
        )
        for name, (needed, limit, candidate) in nearest.items()
    ]


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
