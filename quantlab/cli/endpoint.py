"""Measure a model server: time to first token, time per token, throughput at several concurrencies, tasks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from quantlab.cli._common import Context, common, say
from quantlab.cli._numbers import SEED, Finite


def _numbers(ctx: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    parts = [part.strip() for part in value.split(",")]
    if not all(re.fullmatch(r"[1-9][0-9]{0,3}", part) for part in parts):
        raise click.BadParameter("write numbers from 1 to 9999, such as 1,4,16")
    return tuple(dict.fromkeys(int(part) for part in parts))


def _names(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in (value or "").split(",") if part.strip()))


class _Private(click.Command):
    """A command whose usage errors never repeat its arguments: what was meant for the address may be a
    secret."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            if type(error) is click.UsageError and "extra argument" in error.message:
                raise click.UsageError("one URL is expected, and there are more arguments", ctx) from None
            raise


@click.command(cls=_Private)
@click.argument("url")
@click.option(
    "--api",
    type=click.Choice(["auto", "openai", "ollama"]),
    default="auto",
    show_default=True,
    help="The server's protocol.",
)
@click.option(
    "--model",
    default=None,
    help="The model's name at the server. Default: the one that it lists, if it lists only one.",
)
@click.option(
    "--key-env",
    default=None,
    metavar="NAME",
    help="The environment variable that holds the key. Default: OPENAI_API_KEY if it is set.",
)
@click.option(
    "--insecure-key", is_flag=True, help="Allow sending the key over plain http to another machine."
)
@click.option(
    "--concurrency",
    default="1,4,16",
    show_default=True,
    callback=_numbers,
    help="Concurrent requests; several levels separated by commas.",
)
@click.option(
    "--requests",
    type=click.IntRange(1, 10**6),
    default=32,
    show_default=True,
    help="Requests at each level of concurrency; at least twice the concurrency.",
)
@click.option(
    "--prompt-tokens",
    type=click.IntRange(1, 10**7),
    default=512,
    show_default=True,
    help="Approximate tokens of a prompt.",
)
@click.option(
    "--decode-tokens",
    type=click.IntRange(2, 10**6),
    default=128,
    show_default=True,
    help="Largest number of tokens of an answer.",
)
@click.option(
    "--timeout",
    type=Finite(0, 86400, min_open=True),
    default=60,
    show_default=True,
    help="Longest time for one request, in seconds.",
)
@click.option(
    "--tasks",
    default=None,
    callback=_names,
    help="lm-eval tasks to run through the server, or paths of task files, separated by commas.",
)
@click.option(
    "--task-set",
    default="hub",
    show_default=True,
    help="The source of the tasks' data; see `quantlab list tasks`.",
)
@click.option(
    "--items",
    type=click.IntRange(1, 10**6),
    default=100,
    show_default=True,
    help="Number of items of each task.",
)
@click.option(
    "--tokenizer",
    default=None,
    help="The model's tokenizer (folder or hub name), for tasks that need log-probabilities.",
)
@click.option(
    "--seed",
    type=SEED,
    default=0,
    show_default=True,
    help="Seed for the prompts' words and the choice of items.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    help="Folder to write to. Default: reports/endpoints/HOST-PORT--MODEL.",
)
@common
def command(
    ctx: Context,
    url: str,
    api: str,
    model: str | None,
    key_env: str | None,
    insecure_key: bool,
    concurrency: tuple[int, ...],
    requests: int,
    prompt_tokens: int,
    decode_tokens: int,
    timeout: float,
    tasks: tuple[str, ...],
    task_set: str,
    items: int,
    tokenizer: str | None,
    seed: int,
    out: Path | None,
) -> Any:
    """Measure a model server as its clients see it.

    URL is the root of an OpenAI-compatible server (vLLM, SGLang, llama-server, llama-cpp-python, TGI) or of
    Ollama, or one of its endpoints, such as http://127.0.0.1:8000/v1/completions; a base with a version of
    its own, such as https://host/v1beta/openai, and Azure's ?api-version=2024-10-21 are kept on every
    request. Requests are streamed and decoded greedily; every sample is kept. The key is read from an
    environment variable, written nowhere, and sent only over https or to this machine.

    \b
    quantlab endpoint http://127.0.0.1:8000 --concurrency 1,8 --requests 100
    quantlab endpoint http://127.0.0.1:11434 --model llama3.2 --decode-tokens 64
    quantlab endpoint https://host/v1 --key-env MY_KEY --tasks gsm8k --items 50

    With --json: the record, as in OUT/endpoint.json. Exit code 2 if no request was answered well; the record
    is written all the same."""
    from quantlab.endpoint.address import parse
    from quantlab.endpoint.measuring import LoadWanted, measure
    from quantlab.endpoint.report import markdown
    from quantlab.endpoint.secrets import read_key
    from quantlab.endpoint.writing import folder_for, masked_log, write
    from quantlab.errors import CellFailure, QuantlabError
    from quantlab.progress import Progress
    from quantlab.records.endpoint import EndpointRecord, EndpointWorkload

    address = parse(url)
    if api != "auto" and address.api not in (None, api):
        raise QuantlabError(
            f"the address belongs to the {address.api} API, but --api is {api}: change one of them"
        )
    sent = read_key(address, key_env, insecure_key)
    workload = EndpointWorkload(
        requests=requests,
        prompt_tokens=prompt_tokens,
        decode_tokens=decode_tokens,
        timeout_seconds=timeout,
        concurrency=concurrency,
    )
    protocol: Any = address.api or (None if api == "auto" else api)
    progress = Progress(ctx.quiet)
    if tasks:
        from quantlab.endpoint.tasks import check

        check(tasks, task_set)

    def keep(record: EndpointRecord, samples: list[dict[str, Any]] | None = None) -> None:
        write(out or folder_for(address, record.model), record, samples or [], sent.key)

    record = measure(LoadWanted(address, protocol, model, sent.key, workload, seed), progress, keep)
    samples: list[dict[str, Any]] = []
    folder = out or folder_for(address, record.model)
    if tasks and record.fault is None:
        from quantlab.endpoint.tasks import TasksWanted, evaluate
        from quantlab.progress import noise_to

        with masked_log(folder, sent.key) as log, noise_to(log, ctx.quiet) as progress:
            record, samples = evaluate(
                record,
                address,
                sent.key,
                TasksWanted(tasks, task_set, items, tokenizer, seed),
                progress,
                keep,
            )
    if sent.note:
        record = record.model_copy(update={"notes": (*record.notes, sent.note)})
    record = write(folder, record, samples, sent.key)
    path = folder / "endpoint.json"
    if not any(level.summary.good for level in record.levels):
        why = record.fault or next(
            (r.fault for level in record.levels for r in level.requests if r.fault), None
        )
        said = f"{why.kind.replace('_', ' ')}: {why.message}" if why else "no request was sent"
        raise CellFailure("not_measured", f"no request was answered well ({said}); the record is {path}")
    if not ctx.json:
        say(markdown(record))
        say(str(path))
    return record
