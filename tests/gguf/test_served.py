"""A real server: llama-cpp-python's own, started on the loopback with the tiny model."""

from __future__ import annotations

import asyncio
import json
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

from quantlab.endpoint.address import parse
from quantlab.endpoint.client import Client
from quantlab.endpoint.discovery import call, count_prompt
from quantlab.endpoint.echo import OFFERED
from quantlab.endpoint.measuring import LoadWanted, measure
from quantlab.endpoint.prompts import prompt, words_for
from quantlab.endpoint.protocols import Ask, body
from quantlab.endpoint.secrets import Key
from quantlab.endpoint.tasks import TasksWanted, evaluate
from quantlab.progress import Progress
from quantlab.records.endpoint import EndpointRecord, EndpointWorkload, RequestRecord

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
            with urllib.request.urlopen(
                urllib.request.Request(f"{url}/v1/models", headers={"Authorization": f"Bearer {KEY}"})
            ):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(log.read_text())


@pytest.fixture(scope="module")
def served(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server that wants a key, and gives log-probabilities of whole prompts."""
    port, log = _free_port(), tmp_path_factory.mktemp("server") / "log"
    options = {
        "model": prepared / "f16.gguf",
        "host": "127.0.0.1",
        "port": port,
        "n_ctx": 1024,
        "logits_all": True,
        "api_key": KEY,
    }
    options |= {"interrupt_requests": False}  # by default it breaks a request off for the next one
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "llama_cpp.server", *arguments, "--model_alias", "tiny"],
            stdout=file,
            stderr=file,
            env=dict(os.environ),
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
        load = EndpointWorkload(
            requests=6, prompt_tokens=120, decode_tokens=16, timeout_seconds=30, concurrency=(1, 2)
        )
        return measure(
            LoadWanted(parse(url), None, None, Key(key) if key else None, load), Progress(quiet=True)
        )

    return run


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_a_real_server_is_measured(path: str, served: str, measured: Callable[..., EndpointRecord]) -> None:
    record = measured(served + path)
    assert (record.fault, record.api, record.model) == (None, "openai", "tiny"), record
    for level in record.levels:
        assert level.summary.good == 6 and level.summary.faults == {}
        assert all(0 < r.event_seconds[0] <= r.event_seconds[-1] <= r.end_seconds for r in level.requests)
        assert all(r.finish_reason in ("stop", "length") and r.output_tokens for r in level.requests)
    assert record.prompt_tokens_counted
    assert KEY not in record.model_dump_json()


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_events_are_the_tokens_that_the_server_counts_where_it_does_not_stream(
    path: str, served: str
) -> None:
    """This server leaves usage out of its streams. The same greedy answer, whole, has its count of both."""
    address = parse(served + path)
    assert address.path is not None

    async def both() -> tuple[Any, RequestRecord, int]:
        async with Client(address, address.path or "completions", Key(KEY), 30) as client:
            words = words_for(120, ((10, await counted(client, 10)), (40, await counted(client, 40))))
            ask = Ask("tiny", prompt(words, 7), 16)
            whole = await call(client, "POST", client.path, body(client.path, ask) | {"stream": False})
            return (
                whole["usage"],
                await client.send(ask, time.perf_counter()),
                whole["usage"]["prompt_tokens"],
            )

    async def counted(client: Client, words: int) -> int:
        found = await count_prompt(client, Ask("tiny", prompt(words, 5), 1))
        assert found is not None
        return found

    usage, streamed, prompt_tokens = asyncio.run(both())
    assert streamed.counted_by == "events"
    assert streamed.output_tokens == usage["completion_tokens"]
    assert 90 <= prompt_tokens <= 150  # this tokenizer makes one to six tokens of a word


def test_a_real_server_refuses_without_its_key(served: str, measured: Callable[..., EndpointRecord]) -> None:
    record = measured(served, key=None)
    assert record.fault is not None and (record.fault.kind, record.fault.status) == ("unauthorized", 401)


def test_a_real_server_refuses_what_does_not_fit_its_context(served: str) -> None:
    load = EndpointWorkload(
        requests=3, prompt_tokens=1500, decode_tokens=16, timeout_seconds=30, concurrency=(1,)
    )
    record = measure(LoadWanted(parse(served), None, None, Key(KEY), load), Progress(quiet=True))
    assert record.levels == () and record.fault is not None
    assert record.fault.kind in (
        "dropped",
        "rejected",
        "server_error",
    )  # this version ends such a stream without a word


@pytest.fixture
def task_files(tmp_path: Path) -> tuple[str, str]:
    """A multiple-choice task and a generative one over four questions of their own."""
    docs = [
        {
            "q": f"the quick brown {word} jumps over",
            "choices": [" the lazy dog", " a small grey mice"],
            "gold": n % 2,
        }
        for n, word in enumerate(("fox", "cat", "dog", "stove"))
    ]
    (tmp_path / "docs.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    common = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "docs.jsonl")}},
        "test_split": "test",
        "doc_to_text": "{{q}}",
    }
    choice = {
        "task": "tiny_choice",
        "output_type": "multiple_choice",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "gold",
    }
    choice |= {"target_delimiter": "", "metric_list": [{"metric": "acc"}]}
    free = {"task": "tiny_free", "output_type": "generate_until", "doc_to_target": "{{choices[0]}}"}
    free |= {
        "generation_kwargs": {"until": ["\n\n"], "max_gen_toks": 8},
        "metric_list": [{"metric": "exact_match"}],
    }
    paths = []
    for task in (choice, free):
        paths.append(tmp_path / f"{task['task']}.yaml")
        paths[-1].write_text(json.dumps(common | task))  # JSON is YAML
    return str(paths[0]), str(paths[1])


def _evaluate(
    served: str, task_files: tuple[str, str], tokenizer: Path | None
) -> tuple[EndpointRecord, list[dict[str, Any]]]:
    load = EndpointWorkload(
        requests=1, prompt_tokens=40, decode_tokens=8, timeout_seconds=30, concurrency=(1,)
    )
    record = measure(
        LoadWanted(parse(served + "/v1/completions"), None, None, Key(KEY), load), Progress(quiet=True)
    )
    wanted = TasksWanted(task_files, "hub", 4, str(tokenizer) if tokenizer else None, 0)
    return evaluate(record, parse(served), Key(KEY), wanted, Progress(quiet=True))


def test_log_likelihoods_through_the_server_are_the_models_own(
    served: str, task_files: tuple[str, str], source: Path, dense: Any
) -> None:
    """The server runs the F16 file in llama.cpp, the comparison the same weights in float32 in
    transformers."""
    import torch
    from transformers import AutoTokenizer

    record, rows = _evaluate(served, task_files, source)
    assert record.prompt_logprobs == OFFERED
    result = record.tasks["tiny_choice"].result
    assert result is not None and result.score.n == 4 and result.metric == "acc"
    tokenizer = AutoTokenizer.from_pretrained(source)
    docs = [json.loads(line) for line in (Path(task_files[0]).parent / "docs.jsonl").read_text().splitlines()]
    for row in (r for r in rows if r["task"] == "tiny_choice"):
        doc = docs[row["doc_id"]]
        for choice, (said, _) in zip(doc["choices"], json.loads(row["response"]), strict=True):
            ids, context = tokenizer(doc["q"] + choice).input_ids, len(tokenizer(doc["q"]).input_ids)
            with torch.inference_mode():
                logprobs = dense(torch.tensor([ids])).logits[0].log_softmax(-1)
            expected = sum(float(logprobs[i - 1, ids[i]]) for i in range(context, len(ids)))
            assert said == pytest.approx(expected, abs=0.02 * (len(ids) - context))
    free = record.tasks["tiny_free"].result
    assert free is not None and free.score.n == 4
    assert KEY not in record.model_dump_json() + json.dumps(rows)


def test_without_a_tokenizer_only_the_generative_task_runs(served: str, task_files: tuple[str, str]) -> None:
    record, rows = _evaluate(served, task_files, None)
    failure = record.tasks["tiny_choice"].failure
    assert (
        failure is not None and "--tokenizer" in failure.reason and record.tasks["tiny_choice"].result is None
    )
    assert {row["task"] for row in rows} == {"tiny_free"}
