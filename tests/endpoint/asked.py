"""Ask lm-eval's tasks through a scripted server: the record that they need, and what its answers are."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from servers import ITEMS, Play, Request, Server, answer

from quantlab.endpoint.address import parse
from quantlab.endpoint.statistics import summarize
from quantlab.endpoint.tasks import TasksWanted, evaluate
from quantlab.progress import Progress
from quantlab.records.endpoint import EndpointRecord, EndpointWorkload, Level, RequestRecord, TaskOutcome

Serve = Callable[[Play], Server]


def record_of(url: str, concurrency: int = 2, seconds: float = 20.0, **changes: Any) -> EndpointRecord:
    load = EndpointWorkload(
        requests=1, prompt_tokens=8, decode_tokens=4, timeout_seconds=seconds, concurrency=(concurrency,)
    )
    request = RequestRecord(sent_seconds=0, event_seconds=(0.1, 0.2), end_seconds=0.2, output_tokens=2)
    level = Level(
        concurrency=concurrency,
        warmup=(),
        requests=(request,),
        summary=summarize([request], 1.0),
        client_cpu_share=0.1,
    )
    record = EndpointRecord(
        url=f"{url}/v1/chat/completions",
        api="openai",
        model="m",
        started="",
        client="",
        workload=load,
        levels=(level,),
    )
    return record.model_copy(update=changes)


def evaluated(
    serve: Serve, play: Play, *names: str, keep: Any = None, **changes: Any
) -> tuple[EndpointRecord, Any]:
    server = serve(play)
    wanted, record = TasksWanted(names, "embedded", ITEMS, None, 0), record_of(server.url, **changes)
    return evaluate(
        record, parse(server.url), None, wanted, Progress(quiet=True), keep or (lambda *kept: None)
    )


def said_in(request: Request) -> str:
    return str(request.json["messages"][-1]["content"]).removeprefix("say ")


def chat(content: str | None, finish: str = "stop", **more: Any) -> str:
    message = {"role": "assistant", "content": content, **more}
    return json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": finish}]})


async def right(request: Request, writer: asyncio.StreamWriter) -> None:
    await answer(writer, chat(said_in(request)))


def score_of(outcome: TaskOutcome) -> tuple[float, int]:
    assert outcome.failure is None and outcome.result is not None
    return outcome.result.score.value, outcome.result.score.n
