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
from collections.abc import Sequence
from typing import NamedTuple

from quantlab.recommend.quantity import UNKNOWN
from quantlab.recommend.request import Candidate, JudgedLimit, Limit, ModelRequest, judge_limit, limits_of


class RankedCandidate(NamedTuple):
    """A candidate that may serve the request."""

    candidate: Candidate
    judged: tuple[JudgedLimit, ...]
    use: str | None

    @property
    def open(self) -> tuple[JudgedLimit, ...]:
        """Limits of which it is not known whether they are met."""
        return tuple(each for each in self.judged if each.outcome == "open")

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it stands where it stands."""
        behind = (f"ranked behind: {self.candidate.not_parallel}",) if self.candidate.not_parallel else ()
        return (_ability_text(self.candidate, self.use), *behind, *(each.reason for each in self.judged))


class RejectedCandidate(NamedTuple):
    """A candidate that cannot serve the request."""

    candidate: Candidate
    failed: tuple[JudgedLimit, ...]
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


class ModelChoice(NamedTuple):
    """The answer to a request."""

    ranked: tuple[RankedCandidate, ...]
    rejected: tuple[RejectedCandidate, ...]
    changes: tuple[Change, ...]

    @property
    def best(self) -> Candidate | None:
        """The first; None where nothing serves the request."""
        return self.ranked[0].candidate if self.ranked else None


def choose(request: ModelRequest, candidates: Sequence[Candidate]) -> ModelChoice:
    """Rank the candidates that may serve the request, best first, and say what would change the answer."""
    limits = limits_of(request)
    ranked: list[tuple[tuple[object, ...], RankedCandidate]] = []
    rejected: list[tuple[tuple[object, ...], RejectedCandidate]] = []
    for candidate in candidates:
        judged = tuple([judge_limit(limit, candidate) for limit in limits])
        bad = "failed" if not request.certain else "open"
        failed = tuple([each for each in judged if each.outcome in ("failed", bad)])
        licence = _licence(request, candidate)
        key = _key(candidate, [each.limit.name for each in judged if each.outcome == "open"], request.use)
        if failed or licence:
            rejected.append((key, RejectedCandidate(candidate, failed, licence)))
        else:
            ranked.append((key, RankedCandidate(candidate, judged, request.use)))
    ranked.sort(key=lambda pair: pair[0])
    rejected.sort(key=lambda pair: pair[0])
    first = ranked[0][0] if ranked else None
    best = tuple([each for _, each in ranked])
    changes = (
        *_if_measured(best),
        *_if_relaxed([each for key, each in rejected if first is None or key < first]),
    )
    return ModelChoice(best, tuple([each for _, each in rejected]), changes)


def _licence(request: ModelRequest, candidate: Candidate) -> str:
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
    is_known = near.value is not None and near.kind in ("measured", "interpolated")
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
        (near.value or 0.0) if is_known else math.inf,
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


def _if_measured(ranked: Sequence[RankedCandidate]) -> list[Change]:
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


def _if_relaxed(better: Sequence[RejectedCandidate]) -> list[Change]:
    """For each limit the smallest loosening that makes another candidate the first."""
    nearest: dict[str, tuple[float, Limit, Candidate]] = {}
    for each in better:
        if len(each.failed) != 1 or each.licence:
            continue
        limit, quantity, _ = each.failed[0]
        needed = quantity.high if limit.aspect.at_most else quantity.low
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
