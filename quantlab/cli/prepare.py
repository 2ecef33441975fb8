"""Pin or dequantize a model's weights, and cut its calibration and evaluation text.

Reads recipes/MODEL.yaml, writes models/MODEL/source/ and models/MODEL/text/.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from quantlab.cli._common import Context, common, say
from quantlab.cli._stage import model_option, offline, stage_of


@click.command()
@model_option
@common
def command(ctx: Context, model: str) -> Any:
    root = Path.cwd()
    offline(root, model)
    from quantlab.stages import prepare

    with stage_of(root, model, "prepare", ctx.quiet) as progress:
        source = prepare.run(root, model, progress)
    if not ctx.quiet and not ctx.json:
        say(
            f"{model}: {source.parameters:,} parameters, {source.dtype}, {source.kind} {source.name}",
            err=True,
        )
    return source
