"""Scripted servers, closed after the test, and a short workload."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from servers import Play, Server

from quantlab.endpoint.address import parse
from quantlab.endpoint.measuring import LoadWanted, measure
from quantlab.endpoint.secrets import Key
from quantlab.progress import Progress
from quantlab.records.endpoint import EndpointRecord, EndpointWorkload


@pytest.fixture
def serve() -> Iterator[Callable[[Play], Server]]:
    """Start a server that plays a script."""
    started: list[Server] = []

    def start(play: Play) -> Server:
        started.append(Server(play))
        return started[-1]

    yield start
    for server in started:
        server.close()


@pytest.fixture
def measured() -> Callable[..., EndpointRecord]:
    """Measure a URL with a short workload; keywords change it."""

    def run(
        url: str, key: str | None = None, model: str | None = None, keep: Any = None, **changes: Any
    ) -> EndpointRecord:
        load = {
            "requests": 6,
            "prompt_tokens": 40,
            "decode_tokens": 8,
            "timeout_seconds": 10.0,
            "concurrency": (1, 2),
        } | changes
        wanted = LoadWanted(
            parse(url), None, model, Key(key) if key else None, EndpointWorkload.model_validate(load)
        )
        return measure(wanted, Progress(quiet=True), keep)

    return run
