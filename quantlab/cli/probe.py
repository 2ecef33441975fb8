"""What this machine is and what is installed.

Writes env/: the device, each method's library versions, each stage's version. Later stages depend on these files.
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
    from quantlab.pipeline.retries import retry_transient
    from quantlab.pipeline.tracking import check_recipes
    from quantlab.processes import end_with_dvc
    from quantlab.stages import probe

    check_recipes(Path.cwd())
    end_with_dvc()
    found = probe.run(Path.cwd(), device)
    for retry in retry_transient(Path.cwd()):
        say(f"quantlab: {retry}", err=True)
    if not ctx.quiet and not ctx.json:
        say(f"{found.device}: {found.name}", err=True)
    return found
