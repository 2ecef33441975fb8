"""Convert a model to F16 GGUF and compute its importance matrix, for its GGUF variants.

Reads models/MODEL/source/ and text/, writes models/MODEL/gguf/. The importance matrix is computed on the GPU
where the unquantized file fits there, else on the CPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from quantlab.cli._common import Context, common, say
from quantlab.cli._stage import device_option, model_option, require_recipe, stage_of


@click.command()
@model_option
@device_option
@common
def command(ctx: Context, model: str, device: str | None) -> Any:
    from functools import partial

    from quantlab.hardware.target import target_device
    from quantlab.methods import checked_recipe
    from quantlab.stages import convert
    from quantlab.stages._rehearsal import rehearse_conversion

    root = Path.cwd()
    require_recipe(root, model)
    log = root / "logs" / model / "convert.log"
    recipe = checked_recipe(root / "recipes" / f"{model}.yaml")
    with stage_of(root, model, "convert", ctx.quiet) as progress:
        rehearse = partial(rehearse_conversion, root, model, recipe, log, progress)
        made = convert.run(root, model, log, progress, target_device(root, device), rehearse)
    if not ctx.quiet and not ctx.json:
        said = (
            f"{made.failure.kind}: {made.failure.reason}"
            if made.failure
            else f"importance matrix of {made.imatrix_tokens:,} tokens"
        )
        say(f"{model}: GGUF: {said}", err=True)
    return made
