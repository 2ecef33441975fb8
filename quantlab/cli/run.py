"""Quantize a model, measure it, and write its report.

MODEL is an alias (`quantlab list models`), a hub repository (org/name@revision), a local folder or a GGUF file.
Several --method and --bits mean their cross product; without --bits a method runs at every width that it offers. The
16-bit variants that the others are compared with are added. The work is done in a workspace of its own,
runs/MODEL, by DVC: asked again, only what is new is done; asked for another variant, a cell is added.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantlab.cli._common import Context, common, say
from quantlab.cli._stage import show

if TYPE_CHECKING:
    from quantlab.pipeline.request import Request
    from quantlab.pipeline.workspace import Workspace

MOST_ITEMS = 10_000_000


@click.command()
@click.argument("model")
@click.option("--method", "methods", multiple=True, help="A method, such as awq; may be repeated.")
@click.option("--bits", multiple=True, type=click.IntRange(min=1), help="A bit width; may be repeated.")
@click.option("--variant", "variants", multiple=True, help="A variant of the recipe, such as gguf-4-iq4_xs; may be repeated.")
@click.option("--tasks", help="lm-eval tasks, separated by commas (`quantlab list tasks`).")
@click.option("--limit", type=click.IntRange(1, MOST_ITEMS), help="Items per task, chosen by seed.")
@click.option("--until-decided", is_flag=True, help="Stop each task when its verdict is settled, in at most five looks at the items.")
@click.option("--engine", help="Run checkpoints in this engine where it can read them, such as vllm.")
@click.option("--device", default="auto", help="auto, cpu, cuda:N, or several places such as cuda:0,1 or cuda:0,cpu,disk.")
@click.option("--recipe", "recipe_file", type=click.Path(path_type=Path), help="A recipe file instead of the shipped one.")
@click.option(
    "--checkpoint",
    "checkpoints",
    multiple=True,
    type=click.Path(path_type=Path, exists=True),
    help="Measure a checkpoint that somebody else made of MODEL.",
)
@click.option("--workspace", type=click.Path(path_type=Path, file_okay=False), help="The folder to work in; default: runs/MODEL.")
@click.option("--trust-remote-code", is_flag=True, help="Run Python code that the model's repository carries.")
@click.option("--no-run", is_flag=True, help="Check the request and write the workspace, run nothing.")
@common
def command(ctx: Context, model: str, **options: Any) -> dict[str, Any]:
    from quantlab.device import find
    from quantlab.errors import QuantlabError
    from quantlab.names import parse_variant
    from quantlab.parsing import as_path
    from quantlab.pipeline.request import build, variants_of
    from quantlab.pipeline.workspace import Workspace

    wanted = [v.slug for v in variants_of(options["methods"], options["bits"])]
    wanted += [parse_variant(slug).slug for slug in options["variants"]]
    if options["bits"] and not options["methods"]:
        raise QuantlabError("--bits needs --method: name the method that should quantize to that width")
    overrides: dict[str, Any] = {"items": options["limit"]} if options["limit"] else {}
    if options["until_decided"]:
        overrides["until_decided"] = True
    if options["tasks"] is not None:
        overrides["names"] = [name.strip() for name in options["tasks"].split(",")]
    device = find(options["device"])
    choices = (options["recipe_file"], overrides, options["trust_remote_code"], options["checkpoints"], device, options["engine"])
    request = build(model, wanted, *choices)
    workspace = Workspace(as_path(str(options["workspace"] or Path("runs") / request.recipe.model)).resolve())
    with workspace.held(lambda line: say(f"quantlab: {line}", err=True)):
        return _run(ctx, request, workspace, options)


def _run(ctx: Context, request: Request, workspace: Workspace, options: Mapping[str, Any]) -> dict[str, Any]:
    from quantlab.errors import QuantlabError

    name = request.recipe.model
    workspace.add(request.recipe, request.variants, options["device"])
    for warning in request.warnings:
        say(f"quantlab: {warning}", err=True)
    for line in request.expected.lines() if request.expected and not ctx.quiet else ():
        say(f"quantlab: {line}", err=True)
    if options["no_run"]:
        if not ctx.json:
            say(f"{workspace.root}: {len(request.variants)} cells; `dvc repro` there runs them")
        return {"model": name, "workspace": str(workspace.root), "variants": list(request.variants), "report": None}
    code = workspace.reproduce(name, request.variants, ctx.quiet or ctx.json)
    report = workspace.root / "reports" / name / "report.md"
    if code or not report.exists():
        raise QuantlabError(f"the pipeline did not end well (dvc's exit code {code}): see its output above and {workspace.root / 'logs'}")
    if not ctx.json:
        show(report)
    return {"model": name, "workspace": str(workspace.root), "variants": list(request.variants), "report": str(report)}
