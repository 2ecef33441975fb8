"""Convert a model to F16 GGUF and compute its importance matrix, for its GGUF variants.

Reads models/MODEL/source/ and text/, writes models/MODEL/gguf/.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from quantlab.cli._common import Context, common, say
from quantlab.cli._stage import model_option, require_recipe, stage_of


@click.command()
@model_option
@common
def command(ctx: Context, model: str) -> Any:
    from quantlab.stages import convert

    root = Path.cwd()
    require_recipe(root, model)
    log = root / "logs" / model / "convert.log"
    with stage_of(root, model, "convert", ctx.quiet) as progress:
        made = convert.run(root, model, log, progress)
    if not ctx.quiet and not ctx.json:
        said = (
            f"{made.failure.kind}: {made.failure.reason}"
            if made.failure
            else f"importance matrix of {made.imatrix_tokens:,} tokens"
        )
        say(f"{model}: GGUF: {said}", err=True)
    return made
