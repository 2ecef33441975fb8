"""Run lm-eval's tasks on one cell and keep the results of every item.

Reads the cell's checkpoint, writes reports/MODEL/data/VARIANT/tasks.json and samples.parquet. --until-decided
evaluates the items in at most five blocks and stops a task after the block that decides its verdict at the
recipe's margin (alpha spending: all blocks together make no more false verdicts than one look at all items
would). Evaluate baseline-16 first. A recipe sets it with `tasks: {until_decided: true}`; DVC then reruns
evaluate when it changes."""

from __future__ import annotations

from typing import Any

import click

from quantlab.cli._common import Context, common
from quantlab.cli._stage import device_option, model_option, run_stage, variant_option


@click.command()
@model_option
@variant_option
@device_option
@click.option(
    "--until-decided", is_flag=True, help="Stop each task when its verdict against baseline-16 is decided."
)
@common
def command(ctx: Context, model: str, variant: str, device: str | None, until_decided: bool) -> Any:
    return run_stage(ctx, "evaluate", model, variant, device, until_decided=until_decided)
