"""Figures of a server whose answers are known."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Callable

import pytest
from servers import (
    Play,
    Request,
    Server,
    answer,
    begin,
    chat_event,
    counted,
    end,
    good_chat,
    openai,
    piece,
    tokens_of,
)

from quantlab.endpoint.prompts import prompt, words_for
from quantlab.endpoint.report import markdown
from quantlab.endpoint.statistics import distribution, percentile, summarize, time_per_output_token
from quantlab.records.endpoint import EndpointRecord, RequestRecord

Serve = Callable[[Play], Server]
Measured = Callable[..., EndpointRecord]


def test_figures_by_hand() -> None:
    """Two good requests and a faulty one in 10 seconds."""
    good = {"event_seconds": (1.0, 1.5, 3.0), "end_seconds": 3.1, "output_tokens": 5, "counted_by": "server"}
    requests = [
        RequestRecord.model_validate({"sent_seconds": 0.0, **good}),
        RequestRecord.model_validate({"sent_seconds": 4.0, **good, "event_seconds": (2.0, 3.0, 4.0)}),
        RequestRecord.model_validate(
            {"sent_seconds": 8.0, **good, "output_tokens": 3, "fault": {"kind": "dropped", "message": "x"}},
        ),
    ]
    assert time_per_output_token(requests[0]) == pytest.approx(2.0 / 4)  # five tokens: four intervals
    found = summarize(requests, 10.0)
    assert (found.good, found.output_tokens, found.lost_tokens) == (2, 10, 3)
    assert (found.requests_per_second, found.output_tokens_per_second) == (0.2, 1.0)
    assert found.time_to_first_token is not None and found.time_to_first_token.mean == 1.5
    assert found.latency is not None and found.latency.mean == 3.5
    assert found.inter_token_latency is not None
    assert (found.inter_token_latency.n, found.inter_token_latency.mean) == (
        4,
        1.0,
    ) and found.inter_token_latency.median is None


@pytest.mark.parametrize(("share", "least"), [(0.5, 5), (0.9, 29), (0.95, 59), (0.99, 299)])
def test_a_percentile_is_given_from_wilks_number_of_samples_on(share: float, least: int) -> None:
    assert percentile(range(least - 1), share) is None
    assert percentile(range(least), share) == pytest.approx(share * (least - 1))


def test_percentiles_agree_with_numpy() -> None:
    import numpy as np

    samples = np.random.default_rng(0).exponential(size=400)
    found = distribution(samples.tolist())
    assert found is not None
    assert [found.p50, found.p90, found.p95, found.p99] == pytest.approx(
        np.quantile(samples, [0.5, 0.9, 0.95, 0.99])
    )


def test_prompts_differ_from_the_first_words_on_and_have_the_length_asked_for() -> None:
    many = [prompt(100, index) for index in range(200)]
    assert len({text[:40] for text in many}) == 200
    assert prompt(100, 3) == many[3] and prompt(100, 3, seed=1) != many[3]
    again = [prompt(100, index, nonce="another run") for index in range(200)]
    assert len({text.split()[0] + text.split()[1] for text in again}) > 190 and not {
        t[:20] for t in again
    } & {t[:20] for t in many}
    assert [text.split()[4:] for text in again] == [text.split()[4:] for text in many]
    assert [len(prompt(words, 0, nonce="n").split()) for words in (0, 1, 3, 4, 5)] == [1, 1, 3, 4, 5]
    assert words_for(512, ((64, 7 + 80), (256, 7 + 320))) == 404  # 1.25 tokens a word
    assert (
        words_for(512, ((64, 90), (256, 90))) == 512
    )  # a server that counts only what its cache did not have


def test_a_good_server(serve: Serve, measured: Measured) -> None:
    server = serve(openai(functools.partial(good_chat, seconds=0.005)))
    record = measured(server.url)
    assert (record.fault, record.api, record.model, record.ignores_end) == (None, "openai", "tiny", True)
    assert record.prompt_words == 33 and record.notes == ()
    for level, concurrency in zip(record.levels, (1, 2), strict=True):
        assert level.concurrency == concurrency == len(level.warmup)
        assert level.summary.good == 6 and level.summary.output_tokens == 48
        assert all(
            r.prompt_tokens == 40 and r.counted_by == "server" and len(r.event_seconds) == 8
            for r in level.requests
        )
    prompts = [r.json["messages"][0]["content"] for r in server.seen if r.method == "POST"]
    assert len(prompts) == len(set(prompts)) == 1 + 2 + 1 + 6 + 2 + 6
    assert EndpointRecord.model_validate_json(record.model_dump_json()) == record
    assert "| 1 | 6 / 6 |" in markdown(record)


def test_a_second_run_sends_other_prompts_of_the_same_seed(serve: Serve, measured: Measured) -> None:
    server = serve(openai(good_chat))
    first, second = (measured(server.url) for _ in range(2))
    assert first.nonce != second.nonce and len(first.nonce) == 16 and first.seed == second.seed == 0
    prompts = [r.json["messages"][0]["content"].split() for r in server.seen if r.method == "POST"]
    half = len(prompts) // 2
    assert len({tuple(words[:4]) for words in prompts}) == 2 * half
    assert [words[4:] for words in prompts[:half]] == [words[4:] for words in prompts[half:]]


def test_a_level_has_twice_as_many_requests_as_are_under_way(serve: Serve, measured: Measured) -> None:
    counting, most = counted(good_chat, 0.02)
    record = measured(serve(openai(counting)).url, concurrency=(2, 12), requests=6)
    assert [len(level.requests) for level in record.levels] == [6, 24] and max(most) == 12
    assert record.notes == ("Concurrency 12: 24 requests instead of 6, so that as many are under way.",)


async def _kept(request: Request, writer: asyncio.StreamWriter) -> None:
    """A stream that says [DONE] a moment before it ends, over a connection that stays."""
    await begin(writer, keep=True)
    for n in range(8):
        await piece(writer, chat_event(f" w{n}"))
    await piece(writer, chat_event(finish="length") + "data: [DONE]\n\n")
    await asyncio.sleep(0.01)
    await end(writer)


def test_connections_are_used_again(measured: Measured) -> None:
    server = Server(openai(_kept), keep=True)
    record = measured(server.url + "/v1", model="tiny", concurrency=(1, 2), requests=6)
    server.close()
    assert [level.summary.good for level in record.levels] == [6, 6]
    assert (
        len(server.seen) > 15 and server.connections == 2 + 2
    )  # its two refusals to say what it is end theirs
    assert not any("connections are made anew" in note for note in record.notes)


def test_a_server_that_leaves_its_streams_open_is_not_waited_for(serve: Serve, measured: Measured) -> None:
    async def open_(request: Request, writer: asyncio.StreamWriter) -> None:
        await begin(writer)
        await piece(writer, chat_event(" w") * 8 + chat_event(finish="length") + "data: [DONE]\n\n")
        await asyncio.sleep(30)

    record = measured(
        serve(openai(open_)).url + "/v1", model="tiny", concurrency=(1,), requests=6, timeout_seconds=0.3
    )
    assert record.levels[0].summary.good == 6
    assert any("connections are made anew" in note for note in record.notes)


def test_what_the_standard_of_events_ignores_is_ignored(serve: Serve, measured: Measured) -> None:
    async def odd(request: Request, writer: asyncio.StreamWriter) -> None:
        await begin(writer)
        await piece(
            writer, b"\xef\xbb\xbf" + chat_event(" w").encode() + b"topic: x\nnothing\nid: 3\n: ping\n\n"
        )
        await piece(writer, chat_event(" w") * 7 + chat_event(finish="length") + "data: [DONE]\n\n")
        await end(writer)

    record = measured(serve(openai(odd)).url, concurrency=(1,))
    assert record.fault is None and [len(r.event_seconds) for r in record.levels[0].requests] == [8] * 6


def test_as_many_requests_are_under_way_as_the_level_says(serve: Serve, measured: Measured) -> None:
    counting, most = counted(good_chat, 0.02)
    measured(serve(openai(counting)).url, concurrency=(5,), requests=15)
    assert max(most) == 5


def test_a_server_that_does_not_count_gets_its_events_counted_and_a_note(
    serve: Serve, measured: Measured
) -> None:
    async def plain(request: Request, writer: asyncio.StreamWriter) -> None:
        await begin(writer)
        for n in range(8):
            await piece(writer, chat_event(f" w{n}").replace("\n", "\r\n") + ": ping\r\n\r\n")
        await piece(writer, chat_event(finish="stop").rstrip("\n"))  # no [DONE], no empty line at the end
        await end(writer)

    record = measured(serve(openai(plain)).url)
    assert record.prompt_words == 40
    assert all(
        r.counted_by == "events" and r.output_tokens == 8 and r.fault is None
        for lv in record.levels
        for r in lv.requests
    )
    assert any("did not count output tokens" in note for note in record.notes)
    assert any("prompts have 40 words" in note for note in record.notes)


def test_several_tokens_in_an_event_are_said(serve: Serve, measured: Measured) -> None:
    async def bundled(request: Request, writer: asyncio.StreamWriter) -> None:
        await begin(writer)
        for n in range(2):
            await piece(writer, chat_event(f" a b c d{n}"))
        await piece(writer, chat_event(finish="length"))
        await piece(
            writer,
            chat_event(usage={"prompt_tokens": tokens_of(request), "completion_tokens": 8})
            + "data: [DONE]\n\n",
        )

    record = measured(serve(openai(bundled)).url)
    assert record.levels[0].summary.output_tokens == 48
    assert any("time between events" in note for note in record.notes)


def test_events_are_whole_wherever_the_pieces_are_cut(serve: Serve, measured: Measured) -> None:
    async def cut_up(request: Request, writer: asyncio.StreamWriter) -> None:
        await begin(writer)
        stream = (
            "".join(chat_event(f" é{n}") for n in range(8)) + chat_event(finish="length") + "data: [DONE]\n\n"
        )
        data = stream.replace("\\u00e9", "é").encode()
        for start in range(0, len(data), 7):
            await piece(writer, data[start : start + 7])
        await end(writer)

    record = measured(serve(openai(cut_up)).url, requests=3, concurrency=(1,))
    assert [len(r.event_seconds) for r in record.levels[0].requests] == [8, 8, 8]


def test_a_server_without_chat_or_ignore_eos_is_asked_in_its_own_way(
    serve: Serve, measured: Measured
) -> None:
    async def old(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.path == "/v1/models":
            await answer(writer, json.dumps({"data": [{"id": "old"}]}))
        elif request.path != "/v1/completions":
            await answer(writer, '{"detail": "Not Found"}', 404)
        elif "ignore_eos" in request.json:
            await answer(writer, '{"error": {"message": "Unrecognized request argument: ignore_eos"}}', 400)
        else:
            await begin(writer)
            for n in range(8):
                await piece(
                    writer,
                    f"data: {json.dumps({'choices': [{'text': f' w{n}', 'finish_reason': None}]})}\n\n",
                )
            await piece(
                writer,
                'data: {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 8}}\n\ndata:'
                " [DONE]\n\n",
            )

    record = measured(serve(old).url)
    assert (record.url.removeprefix("http://127.0.0.1:").partition("/")[2], record.ignores_end) == (
        "v1/completions",
        False,
    )
    assert record.levels[0].summary.good == 6
    assert any("/v1/completions was measured" in note for note in record.notes)


def test_a_token_that_is_a_part_of_a_character_counts_and_a_role_does_not(
    serve: Serve, measured: Measured
) -> None:
    async def partial(request: Request, writer: asyncio.StreamWriter) -> None:
        await begin(writer)
        stream = (
            chat_event("")
            + chat_event(" a")
            + chat_event("?").replace('"?"', '""')
            + chat_event("é")
            + chat_event(finish="stop")
        )
        await piece(writer, stream + "data: [DONE]\n\n")

    record = measured(serve(openai(partial)).url, requests=3, concurrency=(1,))
    assert [(len(r.event_seconds), r.output_tokens) for r in record.levels[0].requests] == [(2, 3)] * 3


def test_what_was_measured_is_kept_after_each_level(serve: Serve, measured: Measured) -> None:
    kept: list[EndpointRecord] = []
    record = measured(serve(openai(good_chat)).url, requests=3, keep=kept.append)
    assert [len(k.levels) for k in kept] == [1, 2] and kept[-1] == record
    assert any(note == "Concurrency 2 was not measured: it was interrupted." for note in kept[0].notes)
    assert not any("interrupted" in note for note in record.notes)
