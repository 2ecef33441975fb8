"""Record what this machine is and what is installed.

Writes env/: the device, each method's library versions, each stage's version, a hash of each model's source.
Later stages depend on these files. A record whose settings are not the recipe's, but which DVC takes for
current, is set aside. A stage that failed for a passing reason (a full disk, a killed process) runs again.
Refused, with nothing written, if a recipe in params.yaml lacks a key that dvc.yaml tracks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from quantlab.cli._common import Context, common, say


@click.command()
@click.option(
    "--device",
    default="auto",
    help="auto (the first GPU, else the CPU), cpu, cuda:N, or several places such as cuda:0,1.",
)
@common
def command(ctx: Context, device: str) -> Any:
    from quantlab.run.mending import set_aside_stale
    from quantlab.run.retries import retry_transient
    from quantlab.run.tracking import check_recipes, models
    from quantlab.stages import probe

    root = Path.cwd()
    check_recipes(root)
    device_record = probe.run(root, device, models(root))
    for retry in retry_transient(root):
        say(f"quantlab: {retry}", err=True)
    for cell in set_aside_stale(root):
        say(f"quantlab: {cell} was made with other settings than DVC noted and runs again", err=True)
    if not ctx.quiet and not ctx.json:
        say(f"{device_record.device}: {device_record.name}", err=True)
    return device_record
