"""Generate load in a closed loop: each worker sends its next request as soon as the last one is over.

The number of requests under way equals the concurrency until the workers run out of requests at the end of a
level. A level has at least as many requests as workers."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator

from quantlab.endpoint.client import Client
from quantlab.endpoint.protocols import Ask
from quantlab.endpoint.statistics import summarize
from quantlab.records.endpoint import Level, RequestRecord

_HOPELESS = 3


async def run_level(
    client: Client, concurrency: int, count: int, asks: Iterator[Ask], advance: Callable[[], None]
) -> Level:
    """One level: a warm-up request per worker, then `count` requests against the clock.

    It stops where the first requests all fail, as many as there are workers but at least 3: a server that is
    down is not asked 32 times."""
    warmup = await asyncio.gather(*(client.send(next(asks), time.perf_counter()) for _ in range(concurrency)))
    done: list[RequestRecord] = []
    left = itertools.repeat(None, count)
    began, cpu_began = time.perf_counter(), time.thread_time()

    async def work() -> None:
        for _ in left:
            if _hopeless([*warmup, *done], concurrency):
                return
            done.append(await client.send(next(asks), began))
            advance()

    await asyncio.gather(*(work() for _ in range(concurrency)))
    duration = time.perf_counter() - began
    stopped = (
        f"stopped after {len(done)} of {count} requests: none was answered well"
        if len(done) < count
        else None
    )
    return Level(
        concurrency=concurrency,
        warmup=tuple(warmup),
        requests=tuple(sorted(done, key=lambda r: r.sent_seconds)),
        summary=summarize(done, duration),
        client_cpu_share=(time.thread_time() - cpu_began) / duration,
        stopped=stopped,
    )


def _hopeless(seen: list[RequestRecord], concurrency: int) -> bool:
    return len(seen) >= max(_HOPELESS, concurrency) and all(r.fault for r in seen)
