"""Run the unquantized model on the evaluation text and store its output, the reference.

Reads models/MODEL/, writes references/MODEL/: the final hidden states, and the output head that computes the
exact logits from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from quantlab.cli._common import Context, common, say
from quantlab.cli._stage import device_option, model_option, offline, stage_of


@click.command()
@model_option
@device_option
@common
def command(ctx: Context, model: str, device: str | None) -> Any:
    root = Path.cwd()
    offline(root, model)
    from quantlab.hardware.target import target_device
    from quantlab.stages import reference

    with stage_of(root, model, "reference", ctx.quiet) as progress:
        made = reference.run(root, model, target_device(root, device), progress)
    if not ctx.quiet and not ctx.json:
        said = (
            f"none: {made.failure.kind}: {made.failure.reason}"
            if isinstance(made, reference.NoReference)
            else f"in {made.dtype}, {made.windows} windows of {made.length} tokens"
        )
        say(f"{model}: reference {said}", err=True)
    return made
