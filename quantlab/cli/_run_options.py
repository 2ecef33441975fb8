"""Define the options that `quantlab run` and `quantlab compare` share, and carry the run out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from quantlab.cli._common import Context, say
from quantlab.cli._groups import grouped
from quantlab.cli._stage import show

if TYPE_CHECKING:
    from quantlab.run.request import RunRequest
    from quantlab.run.workspace import Workspace

MOST_ITEMS = 10_000_000


class RunOptions(NamedTuple):
    """How a run is carried out."""

    tasks: str | None
    limit: int | None
    until_decided: bool
    engine: str | None
    device: str
    recipe_file: Path | None
    workspace: Path | None
    trust_remote_code: bool
    no_rehearsal: bool
    no_run: bool

    def of_tasks(self) -> dict[str, Any]:
        """Collect the settings that replace those of the recipe's `tasks`."""
        settings: dict[str, Any] = {"items": self.limit} if self.limit else {}
        if self.until_decided:
            settings["until_decided"] = True
        if self.tasks is not None:
            settings["names"] = [name.strip() for name in self.tasks.split(",")]
        return settings


run_options = grouped(
    "options",
    RunOptions,
    click.option("--tasks", help="lm-eval tasks, separated by commas (`quantlab list tasks`)."),
    click.option(
        "--limit",
        type=click.IntRange(1, MOST_ITEMS),
        help="Largest number of items per task, chosen by the recipe's seed.",
    ),
    click.option(
        "--until-decided",
        is_flag=True,
        help="Stop each task when its verdict is decided; looks at the items at most five times.",
    ),
    click.option("--engine", help="Run checkpoints in this engine, such as vllm, if it reads their format."),
    click.option(
        "--device",
        default="auto",
        help="auto, cpu, cuda:N, or several places such as cuda:0,1 or cuda:0,cpu,disk.",
    ),
    click.option(
        "--recipe",
        "recipe_file",
        type=click.Path(path_type=Path),
        help="A recipe file instead of the shipped one.",
    ),
    click.option(
        "--workspace",
        type=click.Path(path_type=Path, file_okay=False),
        help="Folder to work in. Default: runs/MODEL.",
    ),
    click.option(
        "--trust-remote-code", is_flag=True, help="Allow Python code from the model's repository to run."
    ),
    click.option(
        "--no-rehearsal",
        is_flag=True,
        help="Quantize a model above 3B parameters at once, without trying its first layers before.",
    ),
    click.option(
        "--no-run", is_flag=True, help="Check the request and write the workspace, but run nothing."
    ),
)


def run(
    ctx: Context, model: str, wanted: list[str], checkpoints: tuple[str, ...], options: RunOptions
) -> dict[str, Any]:
    """Check the request, write its workspace, run the pipeline there, and show the report. Raises
    QuantlabError."""
    from quantlab.hardware.device import find
    from quantlab.hardware.target import require_usable
    from quantlab.parsing import as_path
    from quantlab.run.request import build
    from quantlab.run.workspace import Workspace

    request = build(
        model,
        wanted,
        options.recipe_file,
        options.of_tasks(),
        options.trust_remote_code,
        checkpoints,
        require_usable(find(options.device)),
        options.engine,
        rehearsal=not options.no_rehearsal,
    )
    folder = options.workspace or Path("runs") / request.recipe.model
    place = Workspace(as_path(str(folder)).resolve())
    with place.held(lambda line: say(f"quantlab: {line}", err=True)):
        return _carry_out(ctx, request, place, options)


def _carry_out(
    ctx: Context, request: RunRequest, workspace: Workspace, options: RunOptions
) -> dict[str, Any]:
    from quantlab.errors import QuantlabError

    name = request.recipe.model
    workspace.add(request.recipe, request.variants, options.device)
    for warning in request.warnings:
        say(f"quantlab: {warning}", err=True)
    for line in request.expected.lines() if request.expected and not ctx.quiet else ():
        say(f"quantlab: {line}", err=True)
    result = {"model": name, "workspace": str(workspace.root), "variants": list(request.variants)}
    if options.no_run:
        if not ctx.json:
            say(f"{workspace.root}: {len(request.variants)} cells; run them with `dvc repro` in that folder")
        return {**result, "report": None}
    code = workspace.reproduce(name, request.variants, ctx.quiet or ctx.json)
    report = workspace.root / "reports" / name / "report.md"
    if code or not report.exists():
        raise QuantlabError(
            f"the pipeline failed (dvc's exit code {code}): see its output above and"
            f" {workspace.root / 'logs'}"
        )
    if not ctx.json:
        show(report)
    return {**result, "report": str(report)}
