"""Many requests at a time: what fails costs none of the others, what may pass is tried again."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from servers import Play, Request, answer, counted
from servers import Server as Scripted

from quantlab.endpoint import asking
from quantlab.endpoint.answers import ItemAnswer, generated
from quantlab.endpoint.asking import Job, Server, ask_all
from quantlab.endpoint.posting import retry_after
from quantlab.errors import CellFailure

Serve = Callable[[Play], Scripted]


def _ask(url: str, count: int, concurrency: int = 1, timeout: float = 20.0) -> list[Any]:
    jobs = [Job({"n": n}, lambda found: found["n"]) for n in range(count)]
    return ask_all(Server(url, None, timeout, concurrency), jobs, lambda: None)


async def _same(request: Request, writer: asyncio.StreamWriter) -> None:
    await answer(writer, json.dumps({"n": request.json["n"]}))


def test_one_item_that_hangs_loses_itself_alone(serve: Serve) -> None:
    async def hangs(request: Request, writer: asyncio.StreamWriter) -> None:
        await (asyncio.sleep(30) if request.json["n"] == 2 else _same(request, writer))

    server = serve(hangs)
    found = _ask(server.url, 5, timeout=1.0)
    assert [found[n] for n in (0, 1, 3, 4)] == [0, 1, 3, 4]
    assert isinstance(found[2], CellFailure) and found[2].reason == "no whole answer after 1 s"
    assert len(server.seen) == 5  # a whole wait is not repeated


def test_an_answer_that_drips_has_the_same_time(serve: Serve) -> None:
    """A byte every 50 ms: no read of it waits long, and the answer never ends."""

    async def drips(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 X\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(1000):
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.05)

    began = time.perf_counter()
    (found,) = _ask(serve(drips).url, 1, timeout=0.4)
    assert (
        isinstance(found, CellFailure)
        and "no whole answer" in found.reason
        and time.perf_counter() - began < 8
    )


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize("form", ["seconds", "date", "none"])
def test_what_may_pass_is_tried_again(
    status: int, form: str, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "BACKOFF_SECONDS", 0.01)
    refused = set[int]()
    soon = format_datetime(datetime.now(UTC), usegmt=True)
    header = {"seconds": "Retry-After: 0\r\n", "date": f"Retry-After: {soon}\r\n", "none": ""}[form]

    async def limited(request: Request, writer: asyncio.StreamWriter) -> None:
        n = request.json["n"]
        if n % 2 and n not in refused:
            refused.add(n)
            await answer(writer, '{"error": "slow down"}', status, more=header)
        else:
            await _same(request, writer)

    assert _ask(serve(limited).url, 6, 2) == list(range(6)) and refused == {1, 3, 5}


def test_the_time_that_the_server_names_is_waited(serve: Serve) -> None:
    times = list[float]()

    async def limited(request: Request, writer: asyncio.StreamWriter) -> None:
        times.append(time.perf_counter())
        if len(times) == 1:
            await answer(writer, "{}", 429, more="Retry-After: 1\r\n")
        else:
            await _same(request, writer)

    assert _ask(serve(limited).url, 1) == [0] and 0.95 < times[1] - times[0] < 8


def test_a_wait_that_is_too_long_is_not_waited(serve: Serve) -> None:
    async def tomorrow(request: Request, writer: asyncio.StreamWriter) -> None:
        await answer(writer, '{"error": "come back"}', 429, more="Retry-After: 86400\r\n")

    server, began = serve(tomorrow), time.perf_counter()
    (found,) = _ask(server.url, 1)
    assert isinstance(found, CellFailure) and found.reason == "the server answered 429: come back"
    assert len(server.seen) == 1 and time.perf_counter() - began < 8


def test_a_refusal_is_not_tried_again(serve: Serve) -> None:
    async def refuses(request: Request, writer: asyncio.StreamWriter) -> None:
        await answer(writer, '{"error": "no"}', 400)

    server = serve(refuses)
    assert isinstance(_ask(server.url, 1)[0], CellFailure) and len(server.seen) == 1


def test_where_nothing_is_answered_not_everything_is_asked(serve: Serve) -> None:
    async def refuses(request: Request, writer: asyncio.StreamWriter) -> None:
        await answer(writer, '{"error": "no"}', 400)

    server = serve(refuses)
    found = _ask(server.url, 40)
    assert len(server.seen) == 8 and len(found) == 40 and all(isinstance(each, CellFailure) for each in found)


def test_answers_that_say_nothing_do_not_end_the_asking(serve: Serve) -> None:
    async def late(request: Request, writer: asyncio.StreamWriter) -> None:
        n = request.json["n"]
        await answer(writer, json.dumps(_chat(None if n < 12 else str(n))))

    jobs = [Job({"n": n}, lambda found: generated(found, True, []).value) for n in range(14)]
    found = ask_all(Server(serve(late).url, None, 20), jobs, lambda: None)
    assert found[12:] == ["12", "13"] and all("content is null" in each.reason for each in found[:12])


def test_as_many_are_under_way_as_asked(serve: Serve) -> None:
    counting, most = counted(_same, 0.02)
    assert _ask(serve(counting).url, 12, 4) == list(range(12)) and max(most) == 4


def test_retry_after_is_seconds_or_a_date() -> None:
    assert retry_after("7") == 7.0 and retry_after(" 0.5 ") == 0.5
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    found = retry_after(later)
    assert found is not None and 28 < found <= 30
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    for none in (None, "", "nan", "inf", "-1", "soon", "9" * 400, "١٢", "Wed, 99 Oct 2015 07:28:00 GMT"):
        assert retry_after(none) is None


def _chat(content: Any, finish: str | None = "stop", **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": {"content": content, **more}, "finish_reason": finish}]}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (_chat("42"), ItemAnswer("42")),
        (_chat("42", "length"), ItemAnswer("42", truncated=True)),
        (_chat("42\nQ: more", "length"), ItemAnswer("42")),  # it goes on past a stop string that was not sent
        (_chat("a STOP b\nc"), ItemAnswer("a ")),  # the first of them in the text
        (_chat("<think>\nQ: is it 41\n</think>\n\n42"), ItemAnswer("42", reasoning=True)),
        (_chat("is it 41</think>42"), ItemAnswer("42", reasoning=True)),  # the template began the reasoning
        (_chat("<think>is it", "length"), ItemAnswer("", True, True)),
        (_chat("<think>is it", "stop"), ItemAnswer("", True, True)),  # a stop string within the reasoning
        (_chat("42", reasoning_content="is it"), ItemAnswer("42", reasoning=True)),
        (_chat("", "length", reasoning="is it"), ItemAnswer("", True, True)),
    ],
)
def test_the_text_that_is_scored(found: dict[str, Any], expected: ItemAnswer) -> None:
    assert generated(found, True, ["x1", "x2", "x3", "x4", "STOP", "\nQ:", "\n"]) == expected


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (_chat(None), "its content is null (finish_reason stop)"),
        (_chat(None, "length", reasoning_content="x"), "finish_reason length, there is reasoning alone"),
        (_chat([{"type": "text"}]), "is of type list instead of text"),
        (_chat("42", "content_filter"), "content filter"),
        ({"choices": []}, "no choices"),
        ({"choices": [3]}, "no choices"),
        ({"choices": [{"message": None}]}, "no message"),
        ({}, "no choices"),
    ],
)
def test_what_is_no_answer_is_not_scored(found: dict[str, Any], said: str) -> None:
    with pytest.raises(CellFailure) as failure:
        generated(found, True, [])
    assert said in failure.value.reason
