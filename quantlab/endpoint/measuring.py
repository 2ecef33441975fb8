"""Measure an endpoint: find out what it is, size the prompts, run the levels of concurrency."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from quantlab.endpoint.address import Address, Api, Path
from quantlab.endpoint.discovery import Found, count_prompt, describe, find_api, find_model, try_out
from quantlab.endpoint.load import run_level
from quantlab.endpoint.prompts import probe_words, prompt, words_for
from quantlab.endpoint.protocols import Ask
from quantlab.endpoint.request import Client
from quantlab.endpoint.secrets import Key
from quantlab.environments.versions import installed
from quantlab.progress import Progress
from quantlab.records.endpoint import EndpointRecord, Fault, Level, RequestRecord, Workload

UNKNOWN = "unknown"
_BUSY_CLIENT = 0.7
_OFF_TARGET = 0.1
_LEAST_PER_WORKER = 2
"""Requests of a level per request under way: with fewer than one there would never be as many under way as it
says."""


class Wanted(NamedTuple):
    """What the user asks of an endpoint."""

    address: Address
    api: Api | None
    """None: find out."""
    model: str | None
    key: Key | None
    workload: Workload
    seed: int = 0


Keep = Callable[[EndpointRecord], object]


def measure(wanted: Wanted, progress: Progress, keep: Keep | None = None) -> EndpointRecord:
    """Measure an endpoint. Whatever it does is in the record; raises QuantlabError for a model that has to be
    named.

    `keep` gets the record after each level, so that an interrupted measurement leaves what it had.
    """
    return asyncio.run(_measure(wanted, progress, keep or (lambda record: None)))


async def _measure(wanted: Wanted, progress: Progress, keep: Keep) -> EndpointRecord:
    async with Client(
        wanted.address, "chat/completions", wanted.key, wanted.workload.timeout_seconds
    ) as client:
        record = _blank(wanted)
        api = wanted.api or wanted.address.api
        found = Found(api, None) if api else await find_api(client)
        if isinstance(found, Fault):
            return record.model_copy(update={"fault": found})
        client.path = wanted.address.path or _default_path(found.api)
        record = record.model_copy(
            update={"api": found.api, "server": found.server, "url": wanted.address.url(client.path)}
        )
        model = await find_model(client, found.api, wanted.model or wanted.address.deployment)
        if isinstance(model, Fault):
            return record.model_copy(update={"fault": model})
        few = probe_words(wanted.workload.prompt_tokens)[0]
        trial = await try_out(
            client, model, prompt(few, -1, wanted.seed, record.nonce), wanted.workload.decode_tokens
        )
        if isinstance(trial, Fault):
            return record.model_copy(update={"model": model, "fault": trial})
        words = await _words(client, trial.ask._replace(tokens=1), wanted, record.nonce)
        counted, words = words is not None, words or wanted.workload.prompt_tokens
        known: dict[str, Any] = {
            "url": wanted.address.url(client.path),
            "model": model,
            "prompt_words": words,
            "prompt_tokens_counted": counted,
        }
        known |= {
            "ignores_end": trial.ask.ignore_end,
            "limit_field": trial.ask.limit_field,
            "notes": trial.notes,
        }
        known["server"] = found.server or (await describe(client) if found.api == "openai" else None)
        record = record.model_copy(update=known)
        return await _levels(client, trial.ask, record, progress, keep)


def _default_path(api: Api) -> Path:
    return "api/chat" if api == "ollama" else "chat/completions"


def _blank(wanted: Wanted) -> EndpointRecord:
    from quantlab.hardware.device import cpu_name
    from quantlab.processors import cores

    api = wanted.api or wanted.address.api or "openai"
    return EndpointRecord(
        url=wanted.address.url(wanted.address.path or _default_path(api)),
        api=api,
        model=wanted.model or UNKNOWN,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        client=f"{cpu_name()} ({cores()} cores)",
        versions=installed(("quantlab", "aiohttp")),
        workload=wanted.workload,
        seed=wanted.seed,
        nonce=os.urandom(8).hex(),
    )


async def _words(client: Client, ask: Ask, wanted: Wanted, nonce: str) -> int | None:
    """How many words of ours are so many tokens of the server's; None where it does not count."""
    tokens = wanted.workload.prompt_tokens
    few, many = probe_words(tokens)
    counts = [
        await count_prompt(client, ask._replace(prompt=prompt(words, -words, wanted.seed, nonce)))
        for words in (few, many)
    ]
    if counts[0] is None or counts[1] is None:
        return None
    return words_for(tokens, ((few, counts[0]), (many, counts[1])))


async def _levels(
    client: Client, ask: Ask, record: EndpointRecord, progress: Progress, keep: Keep
) -> EndpointRecord:
    """The record with its levels, up to the first one without any good answer."""
    load, levels, first_notes = record.workload, list[Level](), record.notes
    words = record.prompt_words or load.prompt_tokens
    asks = (
        ask._replace(prompt=prompt(words, index, record.seed, record.nonce)) for index in itertools.count()
    )
    for concurrency in load.concurrency:
        count = max(load.requests, _LEAST_PER_WORKER * concurrency)
        with progress.step(f"{ask.model}: {count} requests, {concurrency} at a time", count) as step:
            levels.append(await run_level(client, concurrency, count, asks, step.advance))
        notes = (*first_notes, *_notes(levels, load, record.prompt_tokens_counted), *_connections(client))
        record = record.model_copy(update={"levels": tuple(levels), "notes": notes})
        keep(record)
        if levels[-1].summary.good == 0:
            break
    return record


def _connections(client: Client) -> list[str]:
    if client.closes:
        return [
            "The server ends connections that it promised to keep: every request makes its own, and that is"
            " in the time to first token."
        ]
    if not client.gave_up_waiting:
        return []
    return [
        "The server leaves streams open after their last event: connections are made anew, and that is in the"
        " time to first token."
    ]


def _told_hidden(request: RequestRecord) -> bool:
    """Whether more than the end of text came in no event."""
    return (request.hidden_tokens or 0) > 1


def _notes(levels: list[Level], load: Workload, counted: bool) -> list[str]:
    """What a reader of the figures must know, one sentence each."""
    requests = [r for level in levels for r in level.requests]
    good = [r for r in requests if not r.fault]
    notes = []
    if any(r.counted_by == "events" for r in good):
        notes.append(
            "The server did not count output tokens: events were counted, and one may carry several tokens."
        )
    elif any(
        len(r.event_seconds) < 0.9 * ((r.output_tokens or 0) - r.hidden_tokens)
        for r in good
        if r.hidden_tokens is not None
    ):
        notes.append(
            "Events carry more than one token: inter-token latency is the time between events, not between"
            " tokens."
        )
    unknown, hidden = sum(r.hidden_tokens is None for r in good), [r for r in good if _told_hidden(r)]
    if unknown:
        notes.append(
            f"{unknown} of {len(good)} answers have more tokens by the server's count than their events show "
            "(hidden reasoning, or several tokens in an event): they have no time per output token."
        )
    if hidden:
        notes.append(
            f"{len(hidden)} of {len(good)} answers have tokens that came in no event with text: the time per"
            " output token is without them, the throughput with them."
        )
    if good and all(r.prompt_tokens is None for r in good):
        sized = (
            f"about {load.prompt_tokens} tokens by its count of two others"
            if counted
            else f"{load.prompt_tokens} words"
        )
        notes.append(f"The server's streams do not count prompt tokens: prompts have {sized}.")
    elif any(
        abs((r.prompt_tokens or 0) - load.prompt_tokens) > max(4, _OFF_TARGET * load.prompt_tokens)
        for r in good
    ):
        notes.append(f"Prompts are not of the {load.prompt_tokens} tokens asked for: see the table.")
    short = sum((r.output_tokens or 0) < load.decode_tokens and r.finish_reason != "length" for r in good)
    if short:
        notes.append(
            f"{short} of {len(good)} answers are shorter than {load.decode_tokens} tokens: the model ended"
            " them."
        )
    notes += [f"Concurrency {lv.concurrency}: {lv.stopped}." for lv in levels if lv.stopped]
    notes += [
        f"Concurrency {lv.concurrency}: {_LEAST_PER_WORKER * lv.concurrency} requests instead of"
        f" {load.requests}, so that as many are under way."
        for lv in levels
        if _LEAST_PER_WORKER * lv.concurrency > load.requests
    ]
    if len(levels) < len(load.concurrency):
        skipped = ", ".join(str(c) for c in load.concurrency[len(levels) :])
        why = "it was interrupted" if levels[-1].summary.good else "the level before had no good answer"
        notes.append(f"Concurrency {skipped} was not measured: {why}.")
    notes += [
        f"Concurrency {lv.concurrency}: this client used {lv.client_cpu_share:.0%} of a core and may itself"
        " be the limit."
        for lv in levels
        if lv.summary.good and lv.client_cpu_share > _BUSY_CLIENT
    ]
    return notes
