"""Measure memory and speed of one cell on the device.

Reads the cell's checkpoint, writes reports/MODEL/data/VARIANT/measure.json."""

from __future__ import annotations

from typing import Any

import click

from quantlab.cli._common import Context, common
from quantlab.cli._stage import device_option, model_option, run_stage, variant_option


@click.command()
@model_option
@variant_option
@device_option
@common
def command(ctx: Context, model: str, variant: str, device: str | None) -> Any:
    return run_stage(ctx, "measure", model, variant, device)
