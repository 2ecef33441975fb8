"""Rank models and variants for a GPU, a context, a use and the quality loss that you accept.

The candidates are the catalogue's models at every method and width, with the measurements of the reports
here (reports/, runs/). Each limit is checked against the whole interval of a figure: a variant that
certainly breaks a limit is rejected; one that may break it stays in the ranking with the limit listed as
open. Models with published scores for the use come first, the others follow by size. Of one model, the
first variant has the fewest open limits, then the smallest certain drop, then the smallest divergence.

\b
quantlab recommend --gpu rtx-4090 --context 32k --use code
quantlab recommend --vram 24GB --max-drop 1.0 --license apache-2.0 --certain
quantlab recommend --gpu h200:8 --use long-context --json

With --json: {"request", "hardware", "ranked", "rejected", "changes", "left_out", "measure", "serve"};
every figure is {"value", "kind", "low", "high", "source"}."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from quantlab.cli._common import Context, common
from quantlab.cli._groups import grouped
from quantlab.cli._numbers import Finite

if TYPE_CHECKING:
    from rich.table import Table

    from quantlab.recommend.candidates import Hardware, Pool
    from quantlab.recommend.choice import ModelChoice
    from quantlab.recommend.request import ModelRequest

USES = ("code", "chat", "rag", "long-context", "edge")
EDGE_MEMORY, LONG_CONTEXT, CONTEXT = "8GB", "128k", "8k"


class Limits(NamedTuple):
    """The limits that every variant is checked against, besides memory."""

    max_drop_points: float
    min_tokens_per_second: float | None
    use: str | None
    licences: tuple[str, ...]
    certain: bool


class Shown(NamedTuple):
    """The part of the ranking that the table shows."""

    rows: int
    every_variant: bool


limit_options = grouped(
    "limits",
    Limits,
    click.option(
        "--max-drop",
        "max_drop_points",
        type=Finite(min=0),
        default=4.0,
        show_default=True,
        help="Largest accepted drop of accuracy through quantization, in points.",
    ),
    click.option(
        "--min-speed",
        "min_tokens_per_second",
        type=Finite(min=0, min_open=True),
        help="Smallest accepted decode speed of one sequence, in tokens per second.",
    ),
    click.option(
        "--use",
        type=click.Choice(USES),
        help=(
            "Rank by the published scores of this use's benchmarks first. edge also sets the memory to 8GB by"
            " default."
        ),
    ),
    click.option(
        "--license",
        "licences",
        multiple=True,
        help="An accepted licence, such as apache-2.0; may be repeated.",
    ),
    click.option(
        "--certain",
        is_flag=True,
        help="Show only variants that certainly keep every limit, not those that may.",
    ),
)

shown_options = grouped(
    "shown",
    Shown,
    click.option(
        "--top", "rows", type=click.IntRange(min=1), default=10, show_default=True, help="Number of rows."
    ),
    click.option(
        "--all-variants",
        "every_variant",
        is_flag=True,
        help="Show every variant of a model, not only its best.",
    ),
)


@click.command()
@click.option("--vram", help="Memory of one device, with its unit: 24GB (10^9 bytes) or 24GiB (2^30).")
@click.option(
    "--gpu",
    "gpu_name",
    help="GPUs of the catalogue, such as rtx-5090 or h100:2, which set memory and bandwidth.",
)
@click.option(
    "--context",
    help=(
        f"Tokens in the cache: 8192, 32k (32 × 1024), 1M. Default: {CONTEXT}; {LONG_CONTEXT} with --use"
        " long-context."
    ),
)
@limit_options
@shown_options
@common
def command(
    ctx: Context,
    vram: str | None,
    gpu_name: str | None,
    context: str | None,
    limits: Limits,
    shown: Shown,
) -> dict[str, Any]:
    from quantlab.parsing.sizes import parse_context
    from quantlab.planning.fit import PlannedWorkload
    from quantlab.recommend.candidates import gather
    from quantlab.recommend.choice import choose
    from quantlab.recommend.recommendation import as_json
    from quantlab.recommend.request import ModelRequest

    hardware = _hardware(vram, gpu_name, limits.use)
    context_tokens = parse_context(
        context if context is not None else (LONG_CONTEXT if limits.use == "long-context" else CONTEXT)
    )
    pool = gather(Path(), hardware, PlannedWorkload(context_tokens=context_tokens))
    _check_licences(limits.licences, pool)
    request = ModelRequest(
        context_tokens=context_tokens, max_memory_bytes=hardware.usable_bytes, **limits._asdict()
    )
    choice = choose(request, pool.candidates)
    following = _following(choice, hardware, pool, context_tokens)
    if not ctx.json:
        _print(choice, request, hardware, pool, shown, following)
    return {
        **as_json(request, choice),
        "hardware": hardware.name,
        "left_out": dict(pool.left_out),
        **following,
    }


def _hardware(vram: str | None, gpu_name: str | None, use: str | None) -> Hardware:
    from quantlab.catalogue.gpu import parse_gpus
    from quantlab.errors import QuantlabError
    from quantlab.parsing.amounts import parse_bytes
    from quantlab.recommend.candidates import Hardware, memory_alone

    if vram is not None and gpu_name is not None:
        raise QuantlabError("give --vram or --gpu, not both: a GPU of the catalogue has its own memory")
    if gpu_name is not None:
        rig = parse_gpus(gpu_name)
        return Hardware(rig, f"{rig.count} × {rig.gpu.name}" if rig.count > 1 else rig.gpu.name)
    amount = EDGE_MEMORY if vram is None and use == "edge" else vram
    return (
        memory_alone(parse_bytes(amount), f"a device with {amount}")
        if amount is not None
        else Hardware(None, "no hardware named")
    )


def _check_licences(wanted: tuple[str, ...], pool: Pool) -> None:
    from quantlab.errors import unknown
    from quantlab.recommend.recommendation import licences

    known = licences(pool.candidates)
    for name in wanted:
        if name.lower() not in known:
            raise unknown("licence", name, known)


def _following(choice: ModelChoice, hardware: Hardware, pool: Pool, context: int) -> dict[str, Any]:
    """Write the commands that come next; None if no variant keeps the limits."""
    from quantlab.catalogue import entries
    from quantlab.recommend.recommendation import measuring, serving, untried

    if choice.best is None:
        return {"measure": None, "serve": None}
    best = choice.best
    gpus = hardware.rig.count if hardware.rig else 1
    served = serving(Path(), best, entries().get(best.model), context, gpus)
    note = untried(best)
    notes = (*served.notes, *([note] if note else []), *pool.notes.get(best.model, ()))
    return {"measure": measuring(best), "serve": {**served._asdict(), "notes": notes}}


def _print(
    choice: ModelChoice,
    request: ModelRequest,
    hardware: Hardware,
    pool: Pool,
    shown: Shown,
    following: dict[str, Any],
) -> None:
    from quantlab.inert import console
    from quantlab.recommend.recommendation import LEGEND, changes, rejections

    screen = console(width=None if console().is_terminal else 180)

    def say(text: str) -> None:
        screen.print(text, soft_wrap=True)

    usable = f", {hardware.usable_bytes / 1e9:.2f} GB usable each" if hardware.usable_bytes else ""
    points = f"{request.max_drop_points:g} point{'s' * (request.max_drop_points != 1)}"
    say(f"{hardware.name}{usable}; {request.context_tokens:,} tokens; drop at most {points}")
    if choice.best is None:
        say(_no_variant(request, pool))
    else:
        screen.print(_table(choice, request, shown))
        say(LEGEND)
        say(f"\nwhy {choice.best.model} {choice.best.variant} is first:")
        for reason in choice.ranked[0].reasons:
            say(f"- {reason}")
    say(f"- {rejections(choice)}")
    for sentence in changes(choice):
        say(f"- {sentence}")
    for model, why in pool.left_out.items():
        say(f"- {model} is left out: {why}")
    _print_commands(say, following)


def _table(choice: ModelChoice, request: ModelRequest, shown: Shown) -> Table:
    from rich.table import Table

    from quantlab.recommend.recommendation import HEADERS, rows

    table = Table(header_style="bold")
    for name in HEADERS:
        table.add_column(name, no_wrap=name in ("model", "variant"))
    for row in rows(choice, shown.rows, shown.every_variant, request.use):
        table.add_row(*row)
    return table


def _no_variant(request: ModelRequest, pool: Pool) -> str:
    if not request.certain:
        return "no variant keeps these limits"
    may = len(_may(request, pool))
    hint = f"; without --certain, {may} may keep them" if may else ""
    return f"no variant certainly keeps these limits{hint}"


def _may(request: ModelRequest, pool: Pool) -> tuple[Any, ...]:
    """Rank as without --certain."""
    from quantlab.recommend.choice import choose

    return choose(request._replace(certain=False), pool.candidates).ranked


def _print_commands(say: Any, following: dict[str, Any]) -> None:
    served = following["serve"]
    if served is None:
        return
    say(f"\nmeasure it:  {following['measure']}")
    if served["command"]:
        say(f"serve it:    {served['command']}")
    if served["modelfile"]:
        say(f"or, with a Modelfile of\n{served['modelfile'].rstrip()}\n             {served['create']}")
    for note in served["notes"]:
        say(f"- {note}")
