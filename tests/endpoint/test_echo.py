"""Log-probabilities of prompts: right ones are taken, ignored and shifted ones are not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from servers import Play, Request, Server, answer

from quantlab.endpoint.answers import continuation
from quantlab.endpoint.echo import OFFERED, offers_prompt_logprobs
from quantlab.endpoint.posting import post
from quantlab.endpoint.secrets import Key
from quantlab.errors import CellFailure

Serve = Callable[[Play], Server]


def _entry(words: list[str], position: int) -> tuple[float, dict[str, float]]:
    """A made-up model: what it gives for a position depends on the words before it alone."""
    best = -1.0 - (sum(map(ord, " ".join(words[:position]))) % 97) / 50
    return best - 0.5, {"x": best}


def _server(echoes: bool, shift: int) -> Play:
    async def play(request: Request, writer: asyncio.StreamWriter) -> None:
        words = request.json["prompt"].split()
        echo = request.json["echo"] and echoes
        places = [*(range(len(words)) if echo else ()), len(words)]
        entries = [_entry(words, place + (shift if echo else 0)) for place in places]
        logprobs: dict[str, Any] = {
            "token_logprobs": [e[0] for e in entries],
            "top_logprobs": [e[1] for e in entries],
        }
        if echo:
            logprobs["token_logprobs"][0] = logprobs["top_logprobs"][0] = None
        usage = {"prompt_tokens": len(words), "completion_tokens": 1}
        await answer(
            writer, json.dumps({"choices": [{"index": 0, "text": "x", "logprobs": logprobs}], "usage": usage})
        )

    return play


@pytest.mark.parametrize(
    ("echoes", "shift", "said"),
    [
        (True, 0, OFFERED),
        (False, 0, "ignores echo"),
        (True, 1, "not what it gives when"),
        (True, -1, "not what"),
    ],
)
def test_what_is_echoed_must_be_what_is_generated(echoes: bool, shift: int, said: str, serve: Serve) -> None:
    url = serve(_server(echoes, shift)).url + "/v1/completions"
    assert said in offers_prompt_logprobs(url, "m", None, 5)


@pytest.mark.parametrize(
    "body",
    [
        '{"choices": [{"text": "x", "logprobs": null}], "usage": {"completion_tokens": 1}}',
        '{"choices": []}',
        "[]",
        "x",
    ],
)
def test_a_server_without_log_probabilities(body: str, serve: Serve) -> None:
    async def plain(request: Request, writer: asyncio.StreamWriter) -> None:
        await answer(writer, body)

    assert offers_prompt_logprobs(serve(plain).url, "m", None, 5).startswith("not offered by this server: ")


def test_a_refusal_that_passes_does_not_decide_what_a_server_offers(serve: Serve) -> None:
    refused, good = list[int](), _server(True, 0)

    async def limited(request: Request, writer: asyncio.StreamWriter) -> None:
        if len(refused) < 2:
            refused.append(1)
            await answer(writer, '{"error": "slow down"}', 429, more="Retry-After: 0\r\n")
        else:
            await good(request, writer)

    assert offers_prompt_logprobs(serve(limited).url, "m", None, 20) == OFFERED and len(refused) == 2


def _answer(logprobs: list[float | None], generated: int) -> dict[str, Any]:
    top = [
        None if value is None else {"a": value if n % 2 == 0 else value + 1}
        for n, value in enumerate(logprobs)
    ]
    choice = {"index": 0, "logprobs": {"token_logprobs": logprobs, "top_logprobs": top}}
    return {"choices": [choice], "usage": {"completion_tokens": generated}}


def test_a_continuation_is_found_by_the_counts_of_tokens() -> None:
    """Context of 2 tokens, continuation of 2; the entries at even places are greedy."""
    ids = [5, 6, 7, 8]
    assert continuation(_answer([None, -1.0, -2.0, -4.0, -9.0], 1), ids, 2) == (-6.0, False)
    assert continuation(_answer([None, -1.0, -2.0, -4.0], 0), ids, 2) == (-6.0, False)  # it ended at once
    assert continuation(_answer([None, -1.5, -1.0, -2.0, -4.0, -9.0], 1), ids, 2) == (
        -6.0,
        False,
    )  # a begin token
    assert continuation(_answer([None, -1.0, -2.0, -9.0], 1), [5, 6, 7], 2) == (-2.0, True)


@pytest.mark.parametrize(
    ("logprobs", "said"),
    [
        ([None, -1.0, -2.0, -9.0], "3 tokens of a text that has 4"),
        ([None, -1.0, None, -4.0, -9.0], "leaves out"),
        ([None, -1.0, float("nan"), -4.0, -9.0], "not finite"),
        ([None, -1.0, -2.0, 4.0, -9.0], "above 0"),
    ],
)
def test_other_counts_are_no_score(logprobs: list[float | None], said: str) -> None:
    with pytest.raises(CellFailure, match=said):
        continuation(_answer(logprobs, 1), [5, 6, 7, 8], 2)


@pytest.mark.parametrize("status", [200, 302, 401, 500])
def test_a_post_follows_nothing_and_shows_no_key(
    status: int, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = serve(_server(True, 0))

    async def echo(request: Request, writer: asyncio.StreamWriter) -> None:
        said = json.dumps({"error": {"message": f"{'x' * 190} {request.headers['authorization']}"}})
        await answer(writer, said, status, more=f"Location: {other.url}/v1/completions\r\n")

    monkeypatch.setenv("HTTP_PROXY", other.url)
    with pytest.raises(CellFailure) as failure:
        post(serve(echo).url, {}, Key("sk-0123456789abcdef"), 5)
    assert f"answered {status}" in failure.value.reason and "sk-01" not in failure.value.reason
    assert other.seen == []


def test_a_continuation_without_a_token_of_its_own_has_no_score() -> None:
    """It would win with a log-probability of 0."""
    with pytest.raises(CellFailure, match="no token of its own"):
        continuation(_answer([None, -1.0, -9.0], 1), [5, 6], 2)
