"""Quantize a model, measure it, and write its report.

MODEL is an alias (`quantlab list models`), a hub repository (org/name@revision), a local folder or a GGUF
file. Several --method and --bits run every combination; without --bits a method runs at every width that it
offers. The 16-bit variants, which the others are compared with, are added. DVC runs the work in a workspace,
runs/MODEL: run the same command again and only what is missing or changed runs; ask for another variant and
its cell is added."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantlab.cli._common import Context, common, say
from quantlab.cli._stage import show

if TYPE_CHECKING:
    from quantlab.run.request import RunRequest
    from quantlab.run.workspace import Workspace

MOST_ITEMS = 10_000_000


@click.command()
@click.argument("model")
@click.option("--method", "methods", multiple=True, help="A method, such as awq; may be repeated.")
@click.option("--bits", multiple=True, type=click.IntRange(min=1), help="A bit width; may be repeated.")
@click.option(
    "--variant",
    "variants",
    multiple=True,
    help="A variant of the recipe, such as gguf-4-iq4_xs; may be repeated.",
)
@click.option("--tasks", help="lm-eval tasks, separated by commas (`quantlab list tasks`).")
@click.option(
    "--limit",
    type=click.IntRange(1, MOST_ITEMS),
    help="Largest number of items per task, chosen by the recipe's seed.",
)
@click.option(
    "--until-decided",
    is_flag=True,
    help="Stop each task when its verdict is decided; looks at the items at most five times.",
)
@click.option("--engine", help="Run checkpoints in this engine, such as vllm, if it reads their format.")
@click.option(
    "--device",
    default="auto",
    help="auto, cpu, cuda:N, or several places such as cuda:0,1 or cuda:0,cpu,disk.",
)
@click.option(
    "--recipe",
    "recipe_file",
    type=click.Path(path_type=Path),
    help="A recipe file instead of the shipped one.",
)
@click.option(
    "--checkpoint",
    "checkpoints",
    multiple=True,
    type=click.Path(path_type=Path, exists=True),
    help="Measure a checkpoint that somebody else made of MODEL.",
)
@click.option(
    "--workspace",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to work in. Default: runs/MODEL.",
)
@click.option(
    "--trust-remote-code", is_flag=True, help="Allow Python code from the model's repository to run."
)
@click.option("--no-run", is_flag=True, help="Check the request and write the workspace, but run nothing.")
@common
def command(
    ctx: Context,
    model: str,
    methods: tuple[str, ...],
    bits: tuple[int, ...],
    variants: tuple[str, ...],
    tasks: str | None,
    limit: int | None,
    until_decided: bool,
    engine: str | None,
    device: str,
    recipe_file: Path | None,
    checkpoints: tuple[Path, ...],
    workspace: Path | None,
    trust_remote_code: bool,
    no_run: bool,
) -> dict[str, Any]:
    from quantlab.errors import QuantlabError
    from quantlab.hardware.device import find
    from quantlab.names import parse_variant
    from quantlab.parsing import as_path
    from quantlab.run.request import build, variants_of
    from quantlab.run.workspace import Workspace

    wanted = [v.slug for v in variants_of(methods, bits)]
    wanted += [parse_variant(slug).slug for slug in variants]
    if bits and not methods:
        raise QuantlabError("--bits needs --method: name the method that should quantize to that width")
    task_settings = _task_settings(tasks, limit, until_decided)
    request = build(
        model, wanted, recipe_file, task_settings, trust_remote_code, checkpoints, find(device), engine
    )
    place = Workspace(as_path(str(workspace or Path("runs") / request.recipe.model)).resolve())
    with place.held(lambda line: say(f"quantlab: {line}", err=True)):
        return _run(ctx, request, place, device, no_run)


def _task_settings(tasks: str | None, limit: int | None, until_decided: bool) -> dict[str, Any]:
    """Collect the settings that replace those of the recipe's `tasks`."""
    settings: dict[str, Any] = {"items": limit} if limit else {}
    if until_decided:
        settings["until_decided"] = True
    if tasks is not None:
        settings["names"] = [name.strip() for name in tasks.split(",")]
    return settings


def _run(
    ctx: Context, request: RunRequest, workspace: Workspace, device: str, no_run: bool
) -> dict[str, Any]:
    from quantlab.errors import QuantlabError

    name = request.recipe.model
    workspace.add(request.recipe, request.variants, device)
    for warning in request.warnings:
        say(f"quantlab: {warning}", err=True)
    for line in request.expected.lines() if request.expected and not ctx.quiet else ():
        say(f"quantlab: {line}", err=True)
    if no_run:
        if not ctx.json:
            say(f"{workspace.root}: {len(request.variants)} cells; run them with `dvc repro` in that folder")
        return {
            "model": name,
            "workspace": str(workspace.root),
            "variants": list(request.variants),
            "report": None,
        }
    code = workspace.reproduce(name, request.variants, ctx.quiet or ctx.json)
    report = workspace.root / "reports" / name / "report.md"
    if code or not report.exists():
        raise QuantlabError(
            f"the pipeline failed (dvc's exit code {code}): see its output above and"
            f" {workspace.root / 'logs'}"
        )
    if not ctx.json:
        show(report)
    return {
        "model": name,
        "workspace": str(workspace.root),
        "variants": list(request.variants),
        "report": str(report),
    }
