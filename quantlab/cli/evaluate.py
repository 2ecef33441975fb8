"""lm-eval's tasks on one cell, per-sample results kept.

Reads the cell's checkpoint, writes reports/MODEL/data/VARIANT/tasks.json and samples.parquet. With --until-decided it
looks at the items in at most five blocks and ends a task when its verdict at the recipe's margin is settled (alpha
spending: all looks together make no more false verdicts than one); baseline-16 must have been evaluated before. In a
recipe it is `tasks: {until_decided: true}`, which DVC follows."""

from __future__ import annotations

from typing import Any

import click

from quantlab.cli._common import Context, common
from quantlab.cli._stage import device_option, model_option, run_stage, variant_option


@click.command()
@model_option
@variant_option
@device_option
@click.option("--until-decided", is_flag=True, help="Stop each task when its verdict against baseline-16 is settled.")
@common
def command(ctx: Context, model: str, variant: str, device: str | None, until_decided: bool) -> Any:
    return run_stage(ctx, "evaluate", model, variant, device, until_decided=until_decided)
