"""Scripted servers, closed after the test, a short workload, and a task."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import ITEMS, Play, Server

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


@pytest.fixture
def task_file(tmp_path: Path) -> Callable[..., str]:
    """A generative task of 6 items, each of which asks for its number."""

    def make(name: str = "numbers", **changes: Any) -> str:
        docs = "".join(json.dumps({"q": f"say {n}", "a": str(n)}) + "\n" for n in range(ITEMS))
        (tmp_path / "docs.jsonl").write_text(docs)
        task = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(tmp_path / "docs.jsonl")}},
            "test_split": "test",
            "output_type": "generate_until",
            "doc_to_text": "{{q}}",
            "doc_to_target": "{{a}}",
            "generation_kwargs": {"until": ["\n\n", "Q:", "A:", "</s>", "STOP"], "max_gen_toks": 4},
            "metric_list": [{"metric": "exact_match"}],
        }
        (tmp_path / f"{name}.yaml").write_text(json.dumps(task | changes))
        return str(tmp_path / f"{name}.yaml")

    return make
