"""Write a model's report from its records.

Reads reports/MODEL/data/ and the records that `quantlab merge` added (imported/*/MODEL/); writes
reports/MODEL/report.md, tables/, plots/ and metrics.json.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from quantlab.cli._common import Context, common, say
from quantlab.cli._stage import model_option, show


@click.command()
@model_option
@common
def command(ctx: Context, model: str) -> Any:
    from quantlab.stages import report

    left_out: list[str] = []
    path = report.run(Path.cwd(), model, left_out)
    for sentence in left_out:
        say(f"quantlab: {sentence}", err=True)
    if not ctx.quiet and not ctx.json:
        # under DVC the caller, `quantlab run` or `make demo`, shows the table once
        if "DVC_STAGE" in os.environ:
            say(str(path))
        else:
            show(path)
    return {"model": model, "report": str(path)}
