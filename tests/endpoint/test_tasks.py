"""lm-eval's tasks through a scripted server: what is lost is named, and the rest is scored."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from asked import Serve, chat, evaluated, right, said_in, score_of
from servers import Request, answer, counted

from quantlab.endpoint.report import markdown


def test_an_item_that_hangs_is_lost_and_the_others_are_scored(
    serve: Serve, task_file: Callable[..., str]
) -> None:
    async def hangs(request: Request, writer: asyncio.StreamWriter) -> None:
        await (asyncio.sleep(30) if said_in(request) == "3" else right(request, writer))

    record, rows = evaluated(serve, hangs, task_file(), seconds=1.5)
    outcome = record.tasks["numbers"]
    assert score_of(outcome) == (1.0, 5) and [row["doc_id"] for row in rows] == [0, 1, 2, 4, 5]
    assert [(item.doc_id, item.reason) for item in outcome.lost] == [(3, "no whole answer after 1.5 s")]
    assert (
        "numbers: 1 item without an answer, in no figure (3); 3: no whole answer after 1.5 s" in record.notes
    )
    assert "| 100.0 ± 0.0 % | 5 of 6 | 0.0 % |" in markdown(record)


def test_null_is_no_wrong_answer(serve: Serve, task_file: Callable[..., str]) -> None:
    async def null(request: Request, writer: asyncio.StreamWriter) -> None:
        await answer(writer, chat(None if said_in(request) in "01" else said_in(request)))

    record, _ = evaluated(serve, null, task_file())
    assert score_of(record.tasks["numbers"]) == (1.0, 4) and len(record.tasks["numbers"].lost) == 2

    async def only_null(request: Request, writer: asyncio.StreamWriter) -> None:
        await answer(writer, chat(None, "length", reasoning_content="hm"))

    record, rows = evaluated(serve, only_null, task_file())
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
        await answer(writer, chat(said_in(request) + "STOP and more", "length"))

    record, _ = evaluated(serve, goes_on, task_file())
    assert score_of(record.tasks["numbers"]) == (1.0, 6) and record.tasks["numbers"].truncated == 0
    assert sent == [["\n\n", "Q:", "A:", "</s>"]] * 6


def test_cut_answers_and_reasoning_are_counted_and_shown(serve: Serve, task_file: Callable[..., str]) -> None:
    async def cut(request: Request, writer: asyncio.StreamWriter) -> None:
        n = int(said_in(request))
        await answer(
            writer,
            (
                chat("<think>hm</think>" + str(n))
                if n < 2
                else chat("well, it", "length")
                if n < 5
                else chat("5")
            ),
        )

    record, _ = evaluated(serve, cut, task_file())
    outcome = record.tasks["numbers"]
    assert score_of(outcome) == (0.5, 6) and (outcome.truncated, outcome.reasoning) == (3, 2)
    assert "numbers: 3 of 6 answers were cut before their end, and scored as they were." in record.notes
    assert "numbers: 2 of 6 answers came with reasoning text, which is not scored." in record.notes
    assert "| 6 | 50.0 % |" in markdown(record)


def test_an_unsafe_task_and_one_that_cannot_be_loaded_lose_no_other(
    serve: Serve, task_file: Callable[..., str]
) -> None:
    unsafe, fine = task_file("unsafe", unsafe_code=True), task_file("fine")
    broken = task_file("broken", test_split="no such split")
    kept = list[Any]()
    record, rows = evaluated(serve, right, unsafe, broken, fine, keep=lambda *both: kept.append(both))
    assert score_of(record.tasks["fine"]) == (1.0, 6) and len(rows) == 6
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
    record, _ = evaluated(serve, right, str(path))
    outcome = record.tasks["numbers"]
    assert score_of(outcome) == (1.0, 5)
    assert [(i.doc_id, i.reason) for i in outcome.lost] == [
        (4, "the task cannot score its answer: ZeroDivisionError: four")
    ]


def test_the_length_is_asked_for_as_the_server_takes_it(serve: Serve, task_file: Callable[..., str]) -> None:
    sent = list[Any]()

    async def newer(request: Request, writer: asyncio.StreamWriter) -> None:
        sent.append(request.json)
        await right(request, writer)

    evaluated(serve, newer, task_file(), limit_field="max_completion_tokens")
    assert (
        all(body["max_completion_tokens"] == 4 and "max_tokens" not in body for body in sent)
        and len(sent) == 6
    )


def test_tasks_use_the_concurrency_that_was_measured(serve: Serve, task_file: Callable[..., str]) -> None:
    counting, most = counted(right, 0.02)
    record, _ = evaluated(serve, counting, task_file(), concurrency=3)
    assert max(most) == 3 and score_of(record.tasks["numbers"]) == (1.0, 6)
