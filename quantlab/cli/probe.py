"""What this machine is and what is installed.

Writes env/: the device, each method's library versions, each stage's version, each model's source by content. Later
stages depend on these files. A record of other settings than the recipe's that DVC takes for current is set aside.
What failed for a reason that passes (a full disk, a process that was killed) is tried again by the stages that follow.
Refused, with nothing written, where a recipe in params.yaml lacks a key that dvc.yaml tracks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from quantlab.cli._common import Context, common, say


@click.command()
@click.option("--device", default="auto", help="auto (the first GPU, else the CPU), cpu, cuda:N, or several places such as cuda:0,1.")
@common
def command(ctx: Context, device: str) -> Any:
    from quantlab.run.mending import set_aside_stale
    from quantlab.run.retries import retry_transient
    from quantlab.run.tracking import check_recipes, models
    from quantlab.stages import probe

    root = Path.cwd()
    check_recipes(root)
    found = probe.run(root, device, models(root))
    for retry in retry_transient(root):
        say(f"quantlab: {retry}", err=True)
    for cell in set_aside_stale(root):
        say(f"quantlab: {cell} was made with other settings than DVC noted: it runs again", err=True)
    if not ctx.quiet and not ctx.json:
        say(f"{found.device}: {found.name}", err=True)
    return found
