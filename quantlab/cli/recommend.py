"""Which model, at which variant: a ranked answer for a GPU, a context, a use and a loss that is accepted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantlab.cli._common import Context, common
from quantlab.cli._numbers import Finite

if TYPE_CHECKING:
    from quantlab.planning.candidates import Hardware, Pool
    from quantlab.planning.choice import Choice, Request

USES = ("code", "chat", "rag", "long-context", "edge")
EDGE_MEMORY, LONG_CONTEXT, CONTEXT = "8GB", "128k", "8k"


@click.command()
@click.option("--vram", help="Memory of one device, with its unit: 24GB (10^9 bytes) or 24GiB (2^30).")
@click.option("--gpu", "gpu_name", help="GPUs of the catalogue, such as rtx-5090 or h100:2: memory and bandwidth are known then.")
@click.option("--context", help=f"Tokens in the cache: 8192, 32k (32 × 1024), 1M. Default: {CONTEXT}, for long-context {LONG_CONTEXT}.")
@click.option("--max-drop", type=Finite(min=0), default=4.0, show_default=True, help="Points of accuracy that quantization may cost.")
@click.option("--min-speed", type=Finite(min=0, min_open=True), help="Tokens per second of one sequence.")
@click.option("--use", type=click.Choice(USES), help="What for: published scores of its benchmarks decide first. edge: 8GB by default.")
@click.option("--license", "licences", multiple=True, help="A licence that is accepted, such as apache-2.0; may be repeated.")
@click.option("--certain", is_flag=True, help="Only what is known to keep every limit, not what may.")
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True, help="How many rows.")
@click.option("--all-variants", is_flag=True, help="Every variant of a model, not its best alone.")
@common
def command(ctx: Context, **options: Any) -> dict[str, Any]:
    """Which model, at which variant: a ranked answer for a GPU, a context, a use and a loss that is accepted.

    Candidates are the catalogue's models at every method and width, with what was measured in the reports here (reports/,
    runs/). A limit is judged by the whole interval of what is known: what certainly breaks one is rejected, what may
    break one is ranked with the limit marked open. Models with published scores for the use come first, then the others
    by size; of one model the variant with the fewest open limits, the smallest certain drop and the smallest divergence.

    \b
    quantlab recommend --gpu rtx-4090 --context 32k --use code
    quantlab recommend --vram 24GB --max-drop 1.0 --license apache-2.0 --certain
    quantlab recommend --gpu h200:8 --use long-context --json

    With --json: {"request", "hardware", "ranked", "rejected", "changes", "left_out", "measure", "serve"}; every figure is
    {"value", "kind", "low", "high", "source"}.
    """
    from quantlab.planning.candidates import gather
    from quantlab.planning.choice import Request, choose
    from quantlab.planning.fit import Workload
    from quantlab.planning.recommendation import as_json
    from quantlab.planning.sizes import parse_context

    hardware = _hardware(options)
    context = parse_context(
        options["context"] if options["context"] is not None else (LONG_CONTEXT if options["use"] == "long-context" else CONTEXT)
    )
    pool = gather(Path(), hardware, Workload(context_tokens=context))
    _check_licences(options["licences"], pool)
    request = Request(
        context_tokens=context,
        use=options["use"],
        max_drop_points=options["max_drop"],
        min_tokens_per_second=options["min_speed"],
        max_memory_bytes=hardware.usable_bytes,
        licences=options["licences"],
        certain=options["certain"],
    )
    choice = choose(request, pool.candidates)
    following = _following(choice, hardware, pool, context)
    if not ctx.json:
        _print(choice, request, hardware, pool, options, following)
    return {**as_json(request, choice), "hardware": hardware.name, "left_out": dict(pool.left_out), **following}


def _hardware(options: dict[str, Any]) -> Hardware:
    from quantlab.catalogue.gpu import parse_gpus
    from quantlab.errors import QuantlabError
    from quantlab.planning.amounts import parse_bytes
    from quantlab.planning.candidates import Hardware, memory_alone

    if options["vram"] is not None and options["gpu_name"] is not None:
        raise QuantlabError("give --vram or --gpu, not both: a GPU of the catalogue has its own memory")
    if options["gpu_name"] is not None:
        rig = parse_gpus(options["gpu_name"])
        return Hardware(rig, f"{rig.count} × {rig.gpu.name}" if rig.count > 1 else rig.gpu.name)
    amount = EDGE_MEMORY if options["vram"] is None and options["use"] == "edge" else options["vram"]
    return memory_alone(parse_bytes(amount), f"a device with {amount}") if amount is not None else Hardware(None, "no hardware named")


def _check_licences(wanted: tuple[str, ...], pool: Pool) -> None:
    from quantlab.errors import unknown
    from quantlab.planning.recommendation import licences

    known = licences(pool.candidates)
    for name in wanted:
        if name.lower() not in known:
            raise unknown("licence", name, known)


def _following(choice: Choice, hardware: Hardware, pool: Pool, context: int) -> dict[str, Any]:
    """The commands that come next; None where nothing was found."""
    from quantlab.catalogue import entries
    from quantlab.planning.recommendation import measuring, serving, untried

    if choice.best is None:
        return {"measure": None, "serve": None}
    best = choice.best
    gpus = hardware.rig.count if hardware.rig else 1
    served = serving(Path(), best, entries().get(best.model), context, gpus)
    note = untried(best)
    notes = (*served.notes, *([note] if note else []), *pool.notes.get(best.model, ()))
    return {"measure": measuring(best), "serve": {**served._asdict(), "notes": notes}}


def _print(choice: Choice, request: Request, hardware: Hardware, pool: Pool, options: dict[str, Any], following: dict[str, Any]) -> None:
    from rich.table import Table

    from quantlab.inert import console
    from quantlab.planning.recommendation import HEADERS, LEGEND, changes, rejections, rows

    hint = f"; without --certain {may} may" if request.certain and (may := len(_may(request, pool))) else ""
    screen = console(width=None if console().is_terminal else 180)
    usable = f", {hardware.usable_bytes / 1e9:.2f} GB usable each" if hardware.usable_bytes else ""

    def say(text: str) -> None:
        screen.print(text, soft_wrap=True)

    points = f"{request.max_drop_points:g} point{'s' * (request.max_drop_points != 1)}"
    say(f"{hardware.name}{usable}; {request.context_tokens:,} tokens; drop at most {points}")
    if choice.best is None:
        say(f"nothing is known to keep these limits{hint}")
    else:
        table = Table(header_style="bold")
        for name in HEADERS:
            table.add_column(name, no_wrap=name in ("model", "variant"))
        for row in rows(choice, options["top"], options["all_variants"], request.use):
            table.add_row(*row)
        screen.print(table)
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


def _may(request: Request, pool: Pool) -> tuple[Any, ...]:
    """What would be ranked where open limits do not reject."""
    from quantlab.planning.choice import choose

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
