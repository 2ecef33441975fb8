"""Send many whole requests concurrently: a request that fails costs none of the others.

A request is repeated after status 408, 429 and 5xx and after a connection that ended, once the time that the
server names (Retry-After), or else a growing one, is over. A request that timed out is not repeated."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from quantlab.endpoint.posting import Passing, exchange, open_session
from quantlab.endpoint.secrets import Key
from quantlab.errors import CellFailure

ATTEMPTS = 5
BACKOFF_SECONDS = 0.5
"""Of the first wait at most; doubled with each, drawn at random below it."""
LONGEST_WAIT_SECONDS = 60.0
"""A server that asks for a longer one is not waited for."""
_HOPELESS = 8


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


def ask_all(server: Server, jobs: Sequence[Job], advance: Callable[[], None]) -> list[Any]:
    """What each job read, or the CellFailure that it met, in the jobs' order.

    Where the first ones all fail, as many as are under way but at least 8, the rest is not asked.
    """
    return asyncio.run(_ask_all(server, jobs, advance))


def ask(server: Server, body: dict[str, Any]) -> dict[str, Any]:
    """The answer to one request. Raises CellFailure."""
    (outcome,) = ask_all(server, [Job(body, lambda said: said)], lambda: None)
    if isinstance(outcome, CellFailure):
        raise outcome
    answer: dict[str, Any] = outcome
    return answer


async def _ask_all(server: Server, jobs: Sequence[Job], advance: Callable[[], None]) -> list[Any]:
    outcomes: list[Any] = [None] * len(jobs)
    left, done, answered = iter(enumerate(jobs)), 0, False

    async def work() -> None:
        nonlocal done, answered
        for index, job in left:
            if not answered and done >= max(_HOPELESS, server.concurrency):
                outcomes[index] = CellFailure(
                    "not_measured", f"not asked: the first {done} requests all failed"
                )
                continue
            try:
                said = await _insist(session, server, job.body)
                answered = True
                outcomes[index] = job.read(said)
            except CellFailure as failure:
                outcomes[index] = failure
            done += 1
            advance()

    async with open_session(server.key, server.url) as session:
        await asyncio.gather(*(work() for _ in range(server.concurrency)))
    return outcomes


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
