"""What a server counts is held against what was asked for and what was seen; what it does not say is not made
up."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Callable
from typing import Any

import pytest
from servers import Play, Request, Server, answer, begin, chat_event, end, good_chat, openai, piece, tokens_of

from quantlab.endpoint.prompts import words_for
from quantlab.endpoint.report import markdown
from quantlab.endpoint.statistics import time_per_output_token
from quantlab.records.endpoint import EndpointRecord, RequestRecord

Serve = Callable[[Play], Server]
Measured = Callable[..., EndpointRecord]
SECONDS = 0.01


def _usage(request: Request, tokens: int | None, **more: Any) -> str:
    if tokens is None:
        return ""
    return chat_event(usage={"prompt_tokens": tokens_of(request), "completion_tokens": tokens, **more})


def _delta(name: str, text: str) -> str:
    return (
        f"data: {json.dumps({'choices': [{'index': 0, 'delta': {name: text}, 'finish_reason': None}]})}\n\n"
    )


def _stream(
    pieces: list[str],
    finish: str | None,
    claim: int | None,
    first: float = 0.0,
    done: bool = True,
    **more: Any,
) -> Play:
    """Pieces at intervals of 10 ms, a finish reason as it stands, a count."""

    async def play(request: Request, writer: asyncio.StreamWriter) -> None:
        if not request.json["stream"]:
            await good_chat(request, writer)
            return
        await begin(writer)
        await asyncio.sleep(first)
        for each in pieces:
            await piece(writer, each)
            await asyncio.sleep(SECONDS)
        last = {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}
        await piece(
            writer,
            f"data: {json.dumps(last)}\n\n"
            + _usage(request, claim, **more)
            + ("data: [DONE]\n\n" if done else ""),
        )
        await end(writer)

    return openai(play)


def _words(count: int) -> list[str]:
    return [chat_event(f" w{n}") for n in range(count)]


def _measure(play: Play, serve: Serve, measured: Measured, **changes: Any) -> EndpointRecord:
    return measured(serve(play).url, requests=3, concurrency=(1,), **changes)


def _per_token(record: EndpointRecord) -> list[float | None]:
    return [time_per_output_token(r) for r in record.levels[0].requests]


def _seconds_between(request: RequestRecord) -> float:
    """From one event with text to the next, which is from token to token where each event is one."""
    return (request.event_seconds[-1] - request.event_seconds[0]) / (len(request.event_seconds) - 1)


@pytest.mark.parametrize("claim", [10, 1_000_000, 10**9, 10**30])
def test_more_tokens_than_were_asked_for_are_a_fault_and_in_no_figure(
    claim: int, serve: Serve, measured: Measured
) -> None:
    record = _measure(_stream(_words(8), "length", claim), serve, measured)
    if claim > 10**9:  # no count at all: events are counted
        assert all((r.output_tokens, r.counted_by) == (8, "events") for r in record.levels[0].requests)
        return
    assert record.fault is not None and record.fault.kind == "implausible"
    assert record.fault.message == f"it counts {claim:,} output tokens where 8 were asked for and 8 seen"


def test_a_later_claim_leaves_the_other_requests_figures(serve: Serve, measured: Measured) -> None:
    count = iter(range(1000))

    async def mixed(request: Request, writer: asyncio.StreamWriter) -> None:
        lies = request.path == "/v1/chat/completions" and next(count) > 4 and request.json["stream"]
        await _stream(_words(8), "length", 1_000_000 if lies else 8)(request, writer)

    record = measured(serve(mixed).url, requests=6, concurrency=(1,))
    summary = record.levels[0].summary
    assert summary.faults["implausible"] >= 1 and summary.output_tokens == 8 * summary.good
    assert summary.output_tokens_per_second is not None and summary.output_tokens_per_second < 1000
    assert summary.lost_tokens == 8 * summary.faults["implausible"]


def test_more_prompt_tokens_than_a_prompt_has_bytes_are_a_fault(serve: Serve, measured: Measured) -> None:
    record = _measure(_stream(_words(8), "length", 8, prompt_tokens=1_000_000), serve, measured)
    assert record.fault is not None and "it counts 1,000,000 tokens in a prompt of" in record.fault.message


def test_counts_of_prompts_that_no_tokenizer_gives_are_not_used() -> None:
    assert words_for(512, ((64, 1), (256, 2))) == 512  # 0.005 tokens a word would ask for 98,000 words
    assert words_for(512, ((64, 100), (256, 10**6))) == 512


def test_a_server_that_heeds_no_limit_is_counted_as_it_is(serve: Serve, measured: Measured) -> None:
    record = _measure(_stream(_words(16), "length", 16), serve, measured)
    assert record.fault is None and record.levels[0].summary.output_tokens == 48


def test_no_tokens_claimed_for_a_text_are_not_believed(serve: Serve, measured: Measured) -> None:
    record = _measure(_stream(_words(8), "stop", 0), serve, measured)
    assert all((r.output_tokens, r.counted_by) == (8, "events") for r in record.levels[0].requests)


def test_hidden_reasoning_is_not_in_the_time_per_token(serve: Serve, measured: Measured) -> None:
    """58 of 64 tokens are reasoning that is not shown: 6 pieces at 10 ms each, which 64 tokens would make 0.8
    ms."""
    details = {"completion_tokens_details": {"reasoning_tokens": 58}}
    record = _measure(_stream(_words(6), "stop", 64, 0.05, **details), serve, measured, decode_tokens=64)
    summary = record.levels[0].summary
    assert summary.time_per_output_token is not None and summary.time_per_output_token.mean > 0.009
    assert _per_token(record) == [_seconds_between(r) for r in record.levels[0].requests]
    assert (
        summary.output_tokens == 3 * 64 and [r.hidden_tokens for r in record.levels[0].requests] == [58] * 3
    )
    assert any("the throughput with them" in note for note in record.notes)


def test_tokens_that_were_not_seen_and_not_explained_leave_no_time_per_token(
    serve: Serve, measured: Measured
) -> None:
    record = _measure(_stream(_words(6), "stop", 64, 0.05), serve, measured, decode_tokens=64)
    assert record.levels[0].summary.time_per_output_token is None
    assert any(
        "3 of 3 answers have more tokens by the server's count than their events show" in n
        for n in record.notes
    )
    assert record.levels[0].summary.output_tokens == 3 * 64 and "| – |" in markdown(record)


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_that_is_shown_counts_in_time(name: str, serve: Serve, measured: Measured) -> None:
    pieces = [_delta(name, f" r{n}") for n in range(4)] + _words(4)
    details = {"completion_tokens_details": {"reasoning_tokens": 4}}
    record = _measure(_stream(pieces, "length", 8, **details), serve, measured)
    for request in record.levels[0].requests:
        assert (len(request.event_seconds), request.output_tokens, request.hidden_tokens) == (8, 8, 0)
    assert record.notes == ()


def test_several_tokens_in_an_event_have_a_time_per_token(serve: Serve, measured: Measured) -> None:
    pieces = [chat_event(f" a b c d{n}") for n in range(4)]
    record = _measure(_stream(pieces, "length", 16), serve, measured, decode_tokens=16)
    assert record.levels[0].summary.time_per_output_token is not None
    assert all(r.hidden_tokens == 0 for r in record.levels[0].requests)


def test_the_end_of_text_is_counted_and_has_no_piece(serve: Serve, measured: Measured) -> None:
    record = _measure(_stream(_words(3), "stop", 4), serve, measured)
    assert all((r.output_tokens, r.hidden_tokens) == (4, 1) for r in record.levels[0].requests)
    assert _per_token(record) == [_seconds_between(r) for r in record.levels[0].requests]


def test_tokens_without_text_after_the_last_text_are_not_in_its_time(
    serve: Serve, measured: Measured
) -> None:
    """What vLLM sends past the end of text under ignore_eos: pieces of no text."""
    silent = [_delta("content", "") for _ in range(5)]
    record = _measure(_stream(_words(3) + silent, "length", 8), serve, measured)
    assert all((r.output_tokens, r.hidden_tokens) == (8, 5) for r in record.levels[0].requests)
    assert _per_token(record) == [_seconds_between(r) for r in record.levels[0].requests]


@pytest.mark.parametrize(
    ("pieces", "finish", "claim", "done", "kind"),
    [
        (3, "", None, True, "dropped"),  # '' is null by another name: the answer was broken off
        (8, "", None, True, None),  # all that was asked for came
        (
            3,
            None,
            3,
            True,
            None,
        ),  # OpenAI: the usage of the whole answer comes only where nothing was interrupted
        (3, "", 3, True, None),
        (3, None, None, True, "dropped"),  # llama-cpp-python says [DONE] when it interrupts
        (3, None, 3, False, "dropped"),
        (3, "", None, False, "dropped"),
        (3, "", 3, False, "dropped"),
        (8, "", 8, False, "dropped"),
        (3, "stop", None, False, None),  # no [DONE] is needed after a finish reason (TGI, Ollama)
        (3, "eos_token", 3, True, None),
        (3, "abort", 3, True, "dropped"),  # vLLM and SGLang: the request was aborted
        (3, "error", 3, True, "dropped"),
    ],
)
def test_which_answers_are_whole(
    pieces: int,
    finish: str | None,
    claim: int | None,
    done: bool,
    kind: str | None,
    serve: Serve,
    measured: Measured,
) -> None:
    record = _measure(_stream(_words(pieces), finish, claim, done=done), serve, measured)
    assert (record.fault.kind if record.fault else None) == kind
    if kind is None:
        assert record.levels[0].summary.good == 3


def test_usage_in_every_event_is_no_end(serve: Serve, measured: Measured) -> None:
    """Continuous usage, and then the answer is broken off."""

    async def play(request: Request, writer: asyncio.StreamWriter) -> None:
        await begin(writer)
        for n in range(3):
            choice = {"index": 0, "delta": {"content": f" w{n}"}, "finish_reason": None}
            await piece(
                writer,
                f"data: {json.dumps({'choices': [choice], 'usage': {'completion_tokens': n + 1}})}\n\n",
            )
        await piece(writer, "data: [DONE]\n\n")
        await end(writer)

    record = _measure(openai(play), serve, measured)
    assert record.fault is not None and record.fault.kind == "dropped"


def test_a_server_that_wants_max_completion_tokens_gets_it(serve: Serve, measured: Measured) -> None:
    async def newer(request: Request, writer: asyncio.StreamWriter) -> None:
        sent = request.json
        if "max_tokens" in sent:
            said = (
                "Unsupported parameter: 'max_tokens' is not supported with this model. Use"
                " 'max_completion_tokens' instead."
            )
            await answer(writer, json.dumps({"error": {"message": said}}), 400)
        elif "ignore_eos" in sent:
            await answer(
                writer, '{"error": {"message": "Unrecognized request argument supplied: ignore_eos"}}', 400
            )
        else:
            body = json.dumps(sent | {"max_tokens": sent["max_completion_tokens"]}).encode()
            await good_chat(request._replace(body=body), writer)

    record = _measure(openai(newer), serve, measured)
    assert (record.fault, record.limit_field, record.ignores_end) == (None, "max_completion_tokens", False)
    assert record.levels[0].summary.output_tokens == 24 and record.prompt_tokens_counted


def test_a_kept_connection_that_ends_is_no_fault_of_the_request(measured: Measured) -> None:
    """llama.cpp's server promises to keep a connection and closes it after the stream."""

    async def closing(request: Request, writer: asyncio.StreamWriter) -> None:
        await begin(writer, keep=True)
        for n in range(8):
            await piece(writer, chat_event(f" w{n}"))
        await piece(writer, chat_event(finish="length") + "data: [DONE]\n\n")
        await end(writer)
        await asyncio.sleep(0.01)
        if not writer.transport.is_closing():
            writer.transport.abort()

    server = Server(openai(closing), keep=True)
    record = measured(server.url + "/v1", model="tiny", concurrency=(1, 2), requests=8)
    server.close()
    assert [level.summary.faults for level in record.levels] == [{}, {}]
    assert [level.summary.good for level in record.levels] == [8, 8]


def test_a_reused_connection_is_sent_again_once_and_it_is_said(measured: Measured) -> None:
    """The connection ends when the next request comes over it, whatever a client could have seen before."""
    served: dict[asyncio.StreamWriter, int] = {}

    async def once(request: Request, writer: asyncio.StreamWriter) -> None:
        served[writer] = served.get(writer, 0) + 1
        if served[writer] > 1:
            writer.transport.abort()
            raise ConnectionResetError
        await begin(writer, keep=True)
        for n in range(8):
            await piece(writer, chat_event(f" w{n}"))
        await piece(writer, chat_event(finish="length") + "data: [DONE]\n\n")
        await end(writer)

    server = Server(once, keep=True)
    record = measured(server.url + "/v1", model="tiny", concurrency=(1, 2), requests=8)
    server.close()
    assert [level.summary.faults for level in record.levels] == [{}, {}]
    assert any("ends connections that it promised to keep" in note for note in record.notes)


@pytest.mark.parametrize(
    ("owner", "header", "version", "said"),
    [
        ("vllm", "uvicorn", "0.32.0", "vLLM 0.32.0"),
        ("llamacpp", "llama.cpp", None, "llama.cpp"),
        ("x", "Own/1", None, "Own/1"),
    ],
)
def test_a_server_is_named(
    owner: str, header: str, version: str | None, said: str, serve: Serve, measured: Measured
) -> None:
    async def named(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.path == "/v1/models":
            body = json.dumps({"data": [{"id": "tiny", "owned_by": owner}]})
            await answer(writer, body, more=f"Server: {header}\r\n")
        elif request.path == "/version" and version:
            await answer(writer, json.dumps({"version": version}))
        else:
            await openai(functools.partial(good_chat))(request, writer)

    assert _measure(named, serve, measured).server == said
