"""Answers to tasks as real servers give them: empty, cut, broken off. None of them is a plain wrong answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from asked import Serve, chat, evaluated, right, said_in, score_of
from servers import Play, Request, answer

from quantlab.endpoint.report import markdown
from quantlab.records.endpoint import EndpointRecord


def _where(wrong: Callable[[int], bool], content: str, finish: str = "stop", **more: Any) -> Play:
    async def play(request: Request, writer: asyncio.StreamWriter) -> None:
        if wrong(int(said_in(request))):
            await answer(writer, chat(content, finish, **more))
        else:
            await right(request, writer)

    return play


def _some(n: int) -> bool:
    return n < 3


def _all(n: int) -> bool:
    return True


def _row(record: EndpointRecord) -> str:
    return next(line for line in markdown(record).splitlines() if line.startswith("| numbers "))


@pytest.mark.parametrize("content", ["", "  \n", "\n\nthe answer"])
def test_empty_answers_are_counted_and_named(
    content: str, serve: Serve, task_file: Callable[..., str]
) -> None:
    """The last one is empty up to the first stop string."""
    record, _ = evaluated(serve, _where(_some, content), task_file())
    outcome = record.tasks["numbers"]
    assert score_of(outcome) == (0.5, 6) and (outcome.empty, outcome.truncated) == (3, 0)
    assert "numbers: 3 of 6 answers are empty, and scored as wrong." in record.notes
    assert _row(record).endswith("| 6 | 0.0 % | 50.0 % |")


@pytest.mark.parametrize(
    ("content", "finish", "said"),
    [
        ("", "stop", "all 6 answers are empty"),
        ("", "length", "all 6 answers are empty, 6 of them cut at their greatest length"),
        ("<think>well, it", "length", "all 6 answers are empty, 6 of them cut at their greatest length"),
    ],
)
def test_where_all_answers_are_empty_there_is_no_score(
    content: str, finish: str, said: str, serve: Serve, task_file: Callable[..., str]
) -> None:
    record, rows = evaluated(serve, _where(_all, content, finish), task_file())
    failure = record.tasks["numbers"].failure
    assert failure is not None and failure.kind == "not_measured" and failure.reason.startswith(said)
    assert record.tasks["numbers"].empty == 6 and "0.0" not in _row(record)
    assert [json.loads(row["response"]) for row in rows] == [[""]] * 6


def test_a_score_of_cut_answers_alone_is_named_beside_it(serve: Serve, task_file: Callable[..., str]) -> None:
    record, _ = evaluated(serve, _where(_all, "well, it", "length"), task_file())
    outcome = record.tasks["numbers"]
    assert score_of(outcome) == (0.0, 6) and (outcome.empty, outcome.truncated) == (0, 6)
    assert "0.0 ± 0.0 % (every answer cut or empty)" in _row(record)


@pytest.mark.parametrize("finish", ["length", "LENGTH", "max_tokens", "model_length"])
def test_every_name_of_the_limit_is_a_cut_answer(
    finish: str, serve: Serve, task_file: Callable[..., str]
) -> None:
    record, _ = evaluated(serve, _where(_some, "well", finish), task_file())
    assert record.tasks["numbers"].truncated == 3


@pytest.mark.parametrize("finish", ["abort", "error", "cancelled"])
def test_an_answer_that_the_server_broke_off_loses_its_item(
    finish: str, serve: Serve, task_file: Callable[..., str]
) -> None:
    record, _ = evaluated(serve, _where(_some, "well, it", finish), task_file())
    outcome = record.tasks["numbers"]
    assert score_of(outcome) == (1.0, 3) and [item.doc_id for item in outcome.lost] == [0, 1, 2]
    assert outcome.lost[0].reason == f"the server broke the answer off ({finish})"
