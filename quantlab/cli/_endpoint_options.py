"""Define the options of `quantlab endpoint`: the connection, the requests, and the tasks."""

from __future__ import annotations

import re
from typing import NamedTuple

import click

from quantlab.cli._groups import grouped
from quantlab.cli._numbers import Finite


class ConnectionOptions(NamedTuple):
    """How to reach the model at the server."""

    api: str
    model: str | None
    key_env: str | None
    insecure_key: bool


class RequestOptions(NamedTuple):
    """The requests to send, as the fields of the record's EndpointWorkload."""

    requests: int
    prompt_tokens: int
    decode_tokens: int
    timeout_seconds: float
    concurrency: tuple[int, ...]


class TaskOptions(NamedTuple):
    """The tasks to run through the server."""

    tasks: tuple[str, ...]
    task_set: str
    items: int
    tokenizer: str | None


def _numbers(ctx: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    parts = [part.strip() for part in value.split(",")]
    if not all(re.fullmatch(r"[1-9][0-9]{0,3}", part) for part in parts):
        raise click.BadParameter("write numbers from 1 to 9999, such as 1,4,16")
    return tuple(dict.fromkeys(int(part) for part in parts))


def _names(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in (value or "").split(",") if part.strip()))


connection_options = grouped(
    "connection",
    ConnectionOptions,
    click.option(
        "--api",
        type=click.Choice(["auto", "openai", "ollama"]),
        default="auto",
        show_default=True,
        help="The server's protocol.",
    ),
    click.option("--model", help="The model's name at the server. Default: the only one that it lists."),
    click.option(
        "--key-env",
        metavar="NAME",
        help="The environment variable that holds the key. Default: OPENAI_API_KEY if it is set.",
    ),
    click.option(
        "--insecure-key", is_flag=True, help="Allow sending the key over plain http to another machine."
    ),
)

request_options = grouped(
    "requests",
    RequestOptions,
    click.option(
        "--concurrency",
        default="1,4,16",
        show_default=True,
        callback=_numbers,
        help="Concurrent requests; several levels separated by commas.",
    ),
    click.option(
        "--requests",
        type=click.IntRange(1, 10**6),
        default=32,
        show_default=True,
        help="Requests at each level of concurrency; at least twice the concurrency.",
    ),
    click.option(
        "--prompt-tokens",
        type=click.IntRange(1, 10**7),
        default=512,
        show_default=True,
        help="Approximate tokens of a prompt.",
    ),
    click.option(
        "--decode-tokens",
        type=click.IntRange(2, 10**6),
        default=128,
        show_default=True,
        help="Largest number of tokens of an answer.",
    ),
    click.option(
        "--timeout",
        "timeout_seconds",
        type=Finite(0, 86400, min_open=True),
        default=60,
        show_default=True,
        help="Longest time for one request, in seconds.",
    ),
)

task_options = grouped(
    "task_options",
    TaskOptions,
    click.option(
        "--tasks",
        callback=_names,
        help="lm-eval tasks to run through the server, or paths of task files, separated by commas.",
    ),
    click.option(
        "--task-set",
        default="hub",
        show_default=True,
        help="The source of the tasks' data; see `quantlab list tasks`.",
    ),
    click.option(
        "--items",
        type=click.IntRange(1, 10**6),
        default=100,
        show_default=True,
        help="Number of items of each task.",
    ),
    click.option(
        "--tokenizer",
        help="The model's tokenizer (folder or hub name), for tasks that need log-probabilities.",
    ),
)
