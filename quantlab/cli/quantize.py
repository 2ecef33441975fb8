"""Make one cell's checkpoint and verify it.

Reads models/MODEL/, writes checkpoints/MODEL/VARIANT/ and reports/MODEL/data/VARIANT/quantize.json."""

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
    return run_stage(ctx, "quantize", model, variant, device)
