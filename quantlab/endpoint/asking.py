"""Send many whole requests concurrently: a request that fails costs none of the others.

A request is repeated after status 408, 429 and 5xx and after a connection that ended, once the time that the
server names (Retry-After), or else a growing one, is over. A request that timed out is not repeated."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from quantlab.endpoint.keeping import TaskAnswers
from quantlab.endpoint.posting import Passing, TimedOut, exchange, open_session
from quantlab.endpoint.secrets import Key
from quantlab.errors import CellFailure

ATTEMPTS = 5
BACKOFF_SECONDS = 0.5
"""Of the first wait at most; doubled with each, drawn at random below it."""
LONGEST_WAIT_SECONDS = 60.0
"""A server that asks for a longer one is not waited for."""
_HOPELESS = 8
"""Requests, the first ones of all, after which a server that answered none of them is asked no more."""
_GONE = 16
"""The same, without an answer one after the other, wherever they are; what a server refuses is an answer."""


class Server(NamedTuple):
    """Where requests go, and how."""

    url: str
    key: Key | None
    timeout_seconds: float
    """For one attempt, from its first byte to its last."""
    concurrency: int = 1


class Job(NamedTuple):
    """One request, and what takes its answer apart. Both may raise CellFailure."""

    body: dict[str, Any]
    read: Callable[[dict[str, Any]], Any]


def ask_all(
    server: Server, jobs: Sequence[Job], advance: Callable[[], None], kept: TaskAnswers | None = None
) -> list[Any]:
    """What each job read, or the CellFailure that it met, in the jobs' order.

    Where the first ones all fail, as many as are under way but at least 8, or 16 later ones have no answer,
    the rest is not asked. An answer that could be read is kept at once, and one that is kept is not asked
    for.
    """
    return asyncio.run(_Asking(server, jobs, advance, kept).all())


def ask(server: Server, body: dict[str, Any]) -> dict[str, Any]:
    """The answer to one request. Raises CellFailure."""
    (outcome,) = ask_all(server, [Job(body, lambda said: said)], lambda: None)
    if isinstance(outcome, CellFailure):
        raise outcome
    answer: dict[str, Any] = outcome
    return answer


class _Asking:
    """The state that the workers share."""

    def __init__(
        self,
        server: Server,
        jobs: Sequence[Job],
        advance: Callable[[], None],
        kept: TaskAnswers | None,
    ) -> None:
        self.server, self.jobs, self.advance, self.kept = server, jobs, advance, kept
        self.keys = kept.keys([job.body for job in jobs]) if kept else []
        self.outcomes: list[Any] = [None] * len(jobs)
        self.left = iter(range(len(jobs)))
        self.done = self.silent = 0
        """Requests that are over, and how many of the last ones had no answer."""
        self.answered = False

    async def all(self) -> list[Any]:
        async with open_session(self.server.key, self.server.url) as session:
            await asyncio.gather(*(self._work(session) for _ in range(self.server.concurrency)))
        if self.kept and 0 < self.done == self.silent:
            self.kept.unfinished = True
        return self.outcomes

    async def _work(self, session: Any) -> None:
        for index in self.left:
            given = self.kept.take(self.keys[index]) if self.kept else None
            if given is None and (gone := self._gone()):
                self.outcomes[index] = CellFailure("not_measured", f"not asked: the {gone}")
                if self.kept:
                    self.kept.unfinished = True
                continue
            try:
                job = self.jobs[index]
                self.outcomes[index] = job.read(given) if given else await self._ask(session, index)
            except CellFailure as failure:
                self.outcomes[index] = failure
            self.advance()

    def _gone(self) -> str | None:
        """Why the server is asked no more."""
        most = self.server.concurrency
        if not self.answered and self.done >= max(_HOPELESS, most):
            return f"first {self.done} requests all failed"
        if self.silent >= max(_GONE, most):
            return f"last {self.silent} requests had no answer"
        return None

    async def _ask(self, session: Any, index: int) -> Any:
        try:
            said = await _insist(session, self.server, self.jobs[index].body)
        except CellFailure as failure:
            self.silent = self.silent + 1 if isinstance(failure, Passing | TimedOut) else 0
            raise
        else:
            self.answered, self.silent = True, 0
        finally:
            self.done += 1
        value = self.jobs[index].read(said)
        if self.kept:
            self.kept.keep(self.keys[index], said)
        return value


async def _insist(session: Any, server: Server, body: dict[str, Any]) -> dict[str, Any]:
    from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

    backoff = wait_random_exponential(multiplier=BACKOFF_SECONDS, max=LONGEST_WAIT_SECONDS)

    def wait(state: Any) -> float:
        error = state.outcome.exception()
        return float(backoff(state) if error.retry_after_seconds is None else error.retry_after_seconds)

    def may_pass(error: BaseException) -> bool:
        return isinstance(error, Passing) and (error.retry_after_seconds or 0.0) <= LONGEST_WAIT_SECONDS

    retrying = AsyncRetrying(
        retry=retry_if_exception(may_pass), wait=wait, stop=stop_after_attempt(ATTEMPTS), reraise=True
    )
    answer: dict[str, Any] = await retrying(
        exchange, session, server.url, body, server.key, server.timeout_seconds
    )
    return answer
