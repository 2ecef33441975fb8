"""Measure an endpoint: find its protocol and model, size the prompts, run the levels of concurrency."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from quantlab.endpoint.address import Address, Api, Path
from quantlab.endpoint.client import Client
from quantlab.endpoint.discovery import Service, count_prompt, describe, find_api, find_model, try_out
from quantlab.endpoint.load import run_level
from quantlab.endpoint.notes import LEAST_PER_WORKER, notes_of, notes_on_connections
from quantlab.endpoint.prompts import probe_words, prompt, words_for
from quantlab.endpoint.protocols import Ask
from quantlab.endpoint.secrets import Key
from quantlab.environments.versions import installed
from quantlab.progress import Progress
from quantlab.records.endpoint import EndpointRecord, EndpointWorkload, Fault, Level

UNKNOWN = "unknown"


class LoadWanted(NamedTuple):
    """What the user asks of an endpoint."""

    address: Address
    api: Api | None
    """None: find out."""
    model: str | None
    key: Key | None
    workload: EndpointWorkload
    seed: int = 0


Keep = Callable[[EndpointRecord], object]


def measure(wanted: LoadWanted, progress: Progress, keep: Keep | None = None) -> EndpointRecord:
    """Measure an endpoint. Whatever it does is in the record; raises QuantlabError for a model that has to be
    named.

    `keep` gets the record after each level, so that an interrupted measurement leaves what it had.
    """
    return asyncio.run(_measure(wanted, progress, keep or (lambda record: None)))


async def _measure(wanted: LoadWanted, progress: Progress, keep: Keep) -> EndpointRecord:
    async with Client(
        wanted.address, "chat/completions", wanted.key, wanted.workload.timeout_seconds
    ) as client:
        record = _blank(wanted)
        api = wanted.api or wanted.address.api
        service = Service(api, None) if api else await find_api(client)
        if isinstance(service, Fault):
            return record.model_copy(update={"fault": service})
        client.path = wanted.address.path or _default_path(service.api)
        record = record.model_copy(
            update={"api": service.api, "server": service.server, "url": wanted.address.url(client.path)}
        )
        model = await find_model(client, service.api, wanted.model or wanted.address.deployment)
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
            "asks_usage": trial.ask.usage,
            "limit_field": trial.ask.limit_field,
            "notes": trial.notes,
        }
        known["server"] = service.server or (await describe(client) if service.api == "openai" else None)
        record = record.model_copy(update=known)
        return await _levels(client, trial.ask, record, progress, keep)


def _default_path(api: Api) -> Path:
    return "api/chat" if api == "ollama" else "chat/completions"


def _blank(wanted: LoadWanted) -> EndpointRecord:
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


async def _words(client: Client, ask: Ask, wanted: LoadWanted, nonce: str) -> int | None:
    """Find how many words make the wanted number of the server's tokens; None where it counts none."""
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
        count = max(load.requests, LEAST_PER_WORKER * concurrency)
        with progress.step(f"{ask.model}: {count} requests, {concurrency} at a time", count) as step:
            levels.append(await run_level(client, concurrency, count, asks, step.advance))
        notes = (
            *first_notes,
            *notes_of(levels, load, record.prompt_tokens_counted),
            *notes_on_connections(client),
        )
        record = record.model_copy(update={"levels": tuple(levels), "notes": notes})
        keep(record)
        if levels[-1].summary.good == 0:
            break
    return record
