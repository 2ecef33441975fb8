"""Share options and steps between the stage commands, which work in the current folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from quantlab.cli._common import Context, say

if TYPE_CHECKING:
    from quantlab.progress import Progress
    from quantlab.records import StageName

Function = Callable[..., Any]


def model_option(function: Function) -> Function:
    """Add `--model`."""
    return click.option("--model", required=True, help="The model's name, as in recipes/MODEL.yaml.")(
        function
    )


def variant_option(function: Function) -> Function:
    """Add `--variant`."""
    return click.option(
        "--variant", required=True, help="The variant, METHOD-BITS or METHOD-BITS-LABEL, such as gptq-4."
    )(function)


def device_option(function: Function) -> Function:
    """Add `--device`."""
    help_ = (
        "auto, cpu, cuda:N, or several places for one model, such as cuda:0,1 or cuda:0,cpu,disk. Default:"
        " the device that `probe` found."
    )
    return click.option("--device", default=None, help=help_)(function)


def run_stage(ctx: Context, stage: str, model: str, variant: str, device: str | None, **options: Any) -> Any:
    """Run a cell's stage in its own process. A failure of the cell is recorded and shown; exit code 0."""
    from quantlab.hardware.target import target_device
    from quantlab.stages.isolation import run_isolated
    from quantlab.workspace.cell import Cell

    root = Path.cwd()
    cell = Cell(root, model, variant)
    require_recipe(root, model)
    record = run_isolated(
        cell, cast("StageName", stage), target_device(root, device).device, ctx.quiet, **options
    )
    if not ctx.quiet and not ctx.json:
        where = f"{model}--{variant}: {stage}"
        say(
            (
                f"{where}: {record.failure.kind}: {record.failure.reason}"
                if record.failure
                else f"{where}: done"
            ),
            err=True,
        )
    return record


def require_recipe(root: Path, model: str) -> None:
    """Raise QuantlabError where the workspace has no recipe of the model, before anything is written
    there."""
    from quantlab.errors import QuantlabError
    from quantlab.names import check_model_name

    check_model_name(model)
    if not (root / "recipes" / f"{model}.yaml").exists():
        known = ", ".join(sorted(p.stem for p in (root / "recipes").glob("*.yaml"))) or "none"
        raise QuantlabError(
            f"no recipes/{model}.yaml in this workspace: known are {known}; `quantlab run` writes one"
        )


@contextmanager
def stage_of(root: Path, model: str, stage: str, quiet: bool) -> Iterator[Progress]:
    """Set up a stage of a model: keep temporary files in the workspace, send the libraries' output to a
    log."""
    from quantlab.progress import noise_to
    from quantlab.scratch import scratch

    with scratch(root), noise_to(root / "logs" / model / f"{stage}.log", quiet) as progress:
        yield progress


def workspace_of(model: str) -> Path:
    """Find the workspace of a model: the current folder, else the run of that name. Raises QuantlabError."""
    from quantlab.errors import QuantlabError
    from quantlab.names import check_model_name

    name = check_model_name(model)
    for root in (Path.cwd(), Path.cwd() / "runs" / name):
        if (root / "recipes" / f"{name}.yaml").is_file() and (root / "checkpoints" / name).is_dir():
            return root
    raise QuantlabError(
        f"no checkpoints of {name} here or in runs/{name}: make one with `quantlab run {name} --method M"
        " --bits B`"
    )


def offline(root: Path, model: str) -> None:
    """Keep the libraries from asking the hub where the recipe needs nothing of it; the user's own setting
    comes first."""
    import os

    from quantlab.methods import checked_recipe

    require_recipe(root, model)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    recipe = checked_recipe(root / "recipes" / f"{model}.yaml")
    if not recipe.source.hub and recipe.tasks.set != "hub":
        os.environ.setdefault("HF_HUB_OFFLINE", "1")


def show(report: Path) -> None:
    """Print a report's summary table and its path."""
    from quantlab.comparison.compare import compare
    from quantlab.comparison.load import load_model
    from quantlab.inert import console
    from quantlab.reporting.terminal import summary

    comparison = compare(load_model(report.parents[2], report.parent.name))
    console(width=None if console().is_terminal else 140).print(summary(comparison))
    say(str(report))
