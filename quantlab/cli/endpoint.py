"""Measure a model server: time to first token, time per token, throughput at several concurrencies, tasks.

URL is the root of an OpenAI-compatible server (vLLM, SGLang, llama-server, llama-cpp-python, TGI) or of
Ollama, or one of its endpoints, such as http://127.0.0.1:8000/v1/completions; a base with a version of
its own, such as https://host/v1beta/openai, and Azure's ?api-version=2024-10-21 are kept on every
request. Requests are streamed and decoded greedily; every sample is kept. The key is read from an
environment variable, written nowhere, and sent only over https or to this machine. Answers to tasks are
kept in OUT as they come: the same command resumes a run that was interrupted there; speed is measured anew.

\b
quantlab endpoint http://127.0.0.1:8000 --concurrency 1,8 --requests 100
quantlab endpoint http://127.0.0.1:11434 --model llama3.2 --decode-tokens 64
quantlab endpoint https://host/v1 --key-env MY_KEY --tasks gsm8k --items 50

With --json: the record, as in OUT/endpoint.json. Exit code 2 if no request was answered well; the record
is written all the same."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantlab.cli._common import Context, common, say
from quantlab.cli._endpoint_options import (
    ConnectionOptions,
    RequestOptions,
    TaskOptions,
    connection_options,
    request_options,
    task_options,
)
from quantlab.cli._numbers import SEED

if TYPE_CHECKING:
    from quantlab.endpoint.address import Address
    from quantlab.endpoint.measuring import LoadWanted
    from quantlab.records.endpoint import EndpointRecord


class _Private(click.Command):
    """Keep the arguments out of the command's usage errors: what was meant for the address may be a
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
@connection_options
@request_options
@task_options
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
    help="Folder to write to. Default: reports/endpoints/HOST-PORT--MODEL.",
)
@common
def command(
    ctx: Context,
    url: str,
    connection: ConnectionOptions,
    requests: RequestOptions,
    task_options: TaskOptions,
    seed: int,
    out: Path | None,
) -> Any:
    from quantlab.endpoint.address import parse
    from quantlab.endpoint.measuring import LoadWanted
    from quantlab.endpoint.report import markdown
    from quantlab.endpoint.secrets import read_key
    from quantlab.endpoint.writing import folder_for
    from quantlab.records.endpoint import EndpointWorkload

    address = parse(url)
    protocol = _protocol(address, connection.api)
    sent = read_key(address, connection.key_env, connection.insecure_key)
    wanted = LoadWanted(
        address, protocol, connection.model, sent.key, EndpointWorkload(**requests._asdict()), seed
    )
    if task_options.tasks:
        from quantlab.endpoint.tasks import check

        check(task_options.tasks, task_options.task_set)
    record = _measure(ctx, wanted, task_options, out, sent.note)
    path = (out or folder_for(address, record.model)) / "endpoint.json"
    _require_answers(record, path)
    if not ctx.json:
        say(markdown(record))
        say(str(path))
    return record


def _protocol(address: Address, api: str) -> Any:
    """The protocol that the address or --api names; None to find it out. Raises QuantlabError where they
    contradict each other."""
    from quantlab.errors import QuantlabError

    if api != "auto" and address.api not in (None, api):
        raise QuantlabError(
            f"the address belongs to the {address.api} API, but --api is {api}: change one of them"
        )
    return address.api or (None if api == "auto" else api)


def _measure(
    ctx: Context, wanted: LoadWanted, task_options: TaskOptions, out: Path | None, note: str | None
) -> EndpointRecord:
    """Measure the levels, then the tasks, and write the record after each of them."""
    from quantlab.endpoint.measuring import measure
    from quantlab.endpoint.writing import folder_for, masked_log, write
    from quantlab.progress import Progress, noise_to

    address, key = wanted.address, wanted.key

    def keep(record: EndpointRecord, samples: list[dict[str, Any]] | None = None) -> None:
        write(out or folder_for(address, record.model), record, samples or [], key)

    record = measure(wanted, Progress(ctx.quiet), keep)
    samples: list[dict[str, Any]] = []
    folder = out or folder_for(address, record.model)
    if task_options.tasks and record.fault is None:
        from quantlab.endpoint.keeping import KeptAnswers
        from quantlab.endpoint.tasks import TasksWanted, evaluate

        names, task_set, items, tokenizer = task_options
        tasks = TasksWanted(names, task_set, items, tokenizer, wanted.seed)
        with masked_log(folder, key) as log, noise_to(log, ctx.quiet) as progress:
            kept = KeptAnswers(folder, record, key)
            record, samples = evaluate(record, address, key, tasks, progress, keep, kept)
    if note:
        record = record.model_copy(update={"notes": (*record.notes, note)})
    return write(folder, record, samples, key)


def _require_answers(record: EndpointRecord, path: Path) -> None:
    """Raise CellFailure where no request was answered well."""
    from quantlab.errors import CellFailure

    if any(level.summary.good for level in record.levels):
        return
    why = record.fault or next((r.fault for level in record.levels for r in level.requests if r.fault), None)
    said = f"{why.kind.replace('_', ' ')}: {why.message}" if why else "no request was sent"
    raise CellFailure("not_measured", f"no request was answered well ({said}); the record is {path}")
