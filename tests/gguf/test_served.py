"""A real server: llama-cpp-python's own, started on the loopback with the tiny model."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from quantlab.progress import Progress
from quantlab.serving.address import parse
from quantlab.serving.discovery import call, count_prompt
from quantlab.serving.measuring import Wanted, measure
from quantlab.serving.prompts import prompt, words_for
from quantlab.serving.protocols import Ask, body
from quantlab.serving.records import EndpointRecord, RequestRecord, Workload
from quantlab.serving.request import Client
from quantlab.serving.secrets import Key

KEY = "sk-local-0123456789"


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(urllib.request.Request(f"{url}/v1/models", headers={"Authorization": f"Bearer {KEY}"})):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(log.read_text())


@pytest.fixture(scope="module")
def served(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server that wants a key, and gives log-probabilities of whole prompts."""
    port, log = _free_port(), tmp_path_factory.mktemp("server") / "log"
    options = {"model": prepared / "f16.gguf", "host": "127.0.0.1", "port": port, "n_ctx": 1024, "logits_all": True, "api_key": KEY}
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "llama_cpp.server", *arguments, "--model_alias", "tiny"], stdout=file, stderr=file, env=dict(os.environ)
        )
    try:
        _wait(f"http://127.0.0.1:{port}", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def measured() -> Callable[..., EndpointRecord]:
    def run(url: str, key: str | None = KEY) -> EndpointRecord:
        load = Workload(requests=6, prompt_tokens=120, decode_tokens=16, timeout_seconds=30, concurrency=(1, 2))
        return measure(Wanted(parse(url), None, None, Key(key) if key else None, load), Progress(quiet=True))

    return run


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_a_real_server_is_measured(path: str, served: str, measured: Callable[..., EndpointRecord]) -> None:
    record = measured(served + path)
    assert (record.fault, record.api, record.model) == (None, "openai", "tiny"), record
    for level in record.levels:
        assert level.summary.good == 6 and level.summary.faults == {}
        assert all(0 < r.event_seconds[0] <= r.event_seconds[-1] <= r.end_seconds for r in level.requests)
        assert all(r.finish_reason == "stop" or r.output_tokens == 16 for r in level.requests)
    assert record.prompt_tokens_counted
    assert KEY not in record.model_dump_json()


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_events_are_the_tokens_that_the_server_counts_where_it_does_not_stream(path: str, served: str) -> None:
    """This server leaves usage out of its streams. The same greedy answer, whole, has its count of both."""
    address = parse(served + path)
    assert address.path is not None

    async def both() -> tuple[Any, RequestRecord, int]:
        async with Client(address, address.path or "completions", Key(KEY), 30) as client:
            words = words_for(120, ((10, await counted(client, 10)), (40, await counted(client, 40))))
            ask = Ask("tiny", prompt(words, 7), 16)
            whole = await call(client, "POST", client.path, body(client.path, ask) | {"stream": False})
            return whole["usage"], await client.send(ask, time.perf_counter()), whole["usage"]["prompt_tokens"]

    async def counted(client: Client, words: int) -> int:
        found = await count_prompt(client, Ask("tiny", prompt(words, 5), 1))
        assert found is not None
        return found

    usage, streamed, prompt_tokens = asyncio.run(both())
    assert streamed.counted_by == "events"
    assert streamed.output_tokens == usage["completion_tokens"]
    assert abs(prompt_tokens - 120) <= 12


def test_a_real_server_refuses_without_its_key(served: str, measured: Callable[..., EndpointRecord]) -> None:
    record = measured(served, key=None)
    assert record.fault is not None and (record.fault.kind, record.fault.status) == ("unauthorized", 401)


def test_a_real_server_refuses_what_does_not_fit_its_context(served: str) -> None:
    load = Workload(requests=3, prompt_tokens=1500, decode_tokens=16, timeout_seconds=30, concurrency=(1,))
    record = measure(Wanted(parse(served), None, None, Key(KEY), load), Progress(quiet=True))
    faults = [r.fault for r in (*record.levels[0].warmup, *record.levels[0].requests)]
    assert len(faults) == 3 and all(fault is not None for fault in faults)  # it ends such a stream without a word
    assert record.levels[0].summary.good == 0
