"""lm-eval's tasks through a scripted server: what is lost is named, and the rest is scored."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from servers import Play, Request, Server, answer, counted

from quantlab.endpoint.address import parse
from quantlab.endpoint.report import markdown
from quantlab.endpoint.statistics import summarize
from quantlab.endpoint.tasks import TasksWanted, evaluate
from quantlab.progress import Progress
from quantlab.records.endpoint import EndpointRecord, EndpointWorkload, Level, RequestRecord, TaskOutcome

Serve = Callable[[Play], Server]
ITEMS = 6


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


def _record(url: str, concurrency: int = 2, seconds: float = 20.0, **changes: Any) -> EndpointRecord:
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


def _evaluate(
    serve: Serve, play: Play, *names: str, keep: Any = None, **changes: Any
) -> tuple[EndpointRecord, Any]:
    server = serve(play)
    wanted, record = TasksWanted(names, "embedded", ITEMS, None, 0), _record(server.url, **changes)
    return evaluate(
        record, parse(server.url), None, wanted, Progress(quiet=True), keep or (lambda *kept: None)
    )


def _said(request: Request) -> str:
    return str(request.json["messages"][-1]["content"]).removeprefix("say ")


def _chat(content: str | None, finish: str = "stop", **more: Any) -> str:
    message = {"role": "assistant", "content": content, **more}
    return json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": finish}]})


async def _right(request: Request, writer: asyncio.StreamWriter) -> None:
    await answer(writer, _chat(_said(request)))


def _score(outcome: TaskOutcome) -> tuple[float, int]:
    assert outcome.failure is None and outcome.result is not None
    return outcome.result.score.value, outcome.result.score.n


def test_an_item_that_hangs_is_lost_and_the_others_are_scored(
    serve: Serve, task_file: Callable[..., str]
) -> None:
    async def hangs(request: Request, writer: asyncio.StreamWriter) -> None:
        await (asyncio.sleep(30) if _said(request) == "3" else _right(request, writer))

    record, rows = _evaluate(serve, hangs, task_file(), seconds=1.5)
    outcome = record.tasks["numbers"]
    assert _score(outcome) == (1.0, 5) and [row["doc_id"] for row in rows] == [0, 1, 2, 4, 5]
    assert [(item.doc_id, item.reason) for item in outcome.lost] == [(3, "no whole answer after 1.5 s")]
    assert (
        "numbers: 1 item without an answer, in no figure (3); 3: no whole answer after 1.5 s" in record.notes
    )
    assert "| 100.0 ± 0.0 % | 5 of 6 | 0.0 % |" in markdown(record)


def test_null_is_no_wrong_answer(serve: Serve, task_file: Callable[..., str]) -> None:
    async def null(request: Request, writer: asyncio.StreamWriter) -> None:
        await answer(writer, _chat(None if _said(request) in "01" else _said(request)))

    record, _ = _evaluate(serve, null, task_file())
    assert _score(record.tasks["numbers"]) == (1.0, 4) and len(record.tasks["numbers"].lost) == 2

    async def only_null(request: Request, writer: asyncio.StreamWriter) -> None:
        await answer(writer, _chat(None, "length", reasoning_content="hm"))

    record, rows = _evaluate(serve, only_null, task_file())
    failure = record.tasks["numbers"].failure
    assert rows == [] and failure is not None
    assert failure.reason.startswith(
        "no item was answered well; item 0: the answer has no text: its content is null"
    )


def test_the_fifth_stop_string_counts_and_four_are_sent(serve: Serve, task_file: Callable[..., str]) -> None:
    """A server that takes four, as OpenAI's does, and goes on past the fifth."""
    sent = list[Any]()

    async def goes_on(request: Request, writer: asyncio.StreamWriter) -> None:
        sent.append(request.json["stop"])
        await answer(writer, _chat(_said(request) + "STOP and more", "length"))

    record, _ = _evaluate(serve, goes_on, task_file())
    assert _score(record.tasks["numbers"]) == (1.0, 6) and record.tasks["numbers"].truncated == 0
    assert sent == [["\n\n", "Q:", "A:", "</s>"]] * 6


def test_cut_answers_and_reasoning_are_counted_and_shown(serve: Serve, task_file: Callable[..., str]) -> None:
    async def cut(request: Request, writer: asyncio.StreamWriter) -> None:
        n = int(_said(request))
        await answer(
            writer,
            (
                _chat("<think>hm</think>" + str(n))
                if n < 2
                else _chat("well, it", "length")
                if n < 5
                else _chat("5")
            ),
        )

    record, _ = _evaluate(serve, cut, task_file())
    outcome = record.tasks["numbers"]
    assert _score(outcome) == (0.5, 6) and (outcome.truncated, outcome.reasoning) == (3, 2)
    assert "numbers: 3 of 6 answers were cut before their end, and scored as they were." in record.notes
    assert "numbers: 2 of 6 answers came with reasoning text, which is not scored." in record.notes
    assert "| 6 | 50.0 % |" in markdown(record)


def test_an_unsafe_task_and_one_that_cannot_be_loaded_lose_no_other(
    serve: Serve, task_file: Callable[..., str]
) -> None:
    unsafe, fine = task_file("unsafe", unsafe_code=True), task_file("fine")
    broken = task_file("broken", test_split="no such split")
    kept = list[Any]()
    record, rows = _evaluate(serve, _right, unsafe, broken, fine, keep=lambda *both: kept.append(both))
    assert _score(record.tasks["fine"]) == (1.0, 6) and len(rows) == 6
    failed = {name: outcome.failure.kind for name, outcome in record.tasks.items() if outcome.failure}
    assert failed == {"unsafe": "unsupported", "broken": "crashed"}
    assert "runs the code that a model writes" in str(record.tasks["unsafe"].failure)
    assert len(kept) >= 2 and kept[-1][0].tasks == record.tasks


def test_an_item_that_the_task_cannot_score_is_named(
    serve: Serve, task_file: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "scoring.py").write_text(
        "def process_results(doc, results):\n"
        "    if doc['a'] == '4':\n        raise ZeroDivisionError('four')\n"
        "    return {'exact_match': float(results[0] == doc['a'])}\n"
    )
    path = Path(task_file())
    path.write_text(path.read_text()[:-1] + ', "process_results": !function scoring.process_results}')
    record, _ = _evaluate(serve, _right, str(path))
    outcome = record.tasks["numbers"]
    assert _score(outcome) == (1.0, 5)
    assert [(i.doc_id, i.reason) for i in outcome.lost] == [
        (4, "the task cannot score its answer: ZeroDivisionError: four")
    ]


def test_the_length_is_asked_for_as_the_server_takes_it(serve: Serve, task_file: Callable[..., str]) -> None:
    sent = list[Any]()

    async def newer(request: Request, writer: asyncio.StreamWriter) -> None:
        sent.append(request.json)
        await _right(request, writer)

    _evaluate(serve, newer, task_file(), limit_field="max_completion_tokens")
    assert (
        all(body["max_completion_tokens"] == 4 and "max_tokens" not in body for body in sent)
        and len(sent) == 6
    )


def test_tasks_use_the_concurrency_that_was_measured(serve: Serve, task_file: Callable[..., str]) -> None:
    counting, most = counted(_right, 0.02)
    record, _ = _evaluate(serve, counting, task_file(), concurrency=3)
    assert max(most) == 3 and _score(record.tasks["numbers"]) == (1.0, 6)
