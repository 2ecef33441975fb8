"""What there is: models of the catalogue, methods, engines, tasks."""

from __future__ import annotations

from typing import Any

import click

from quantlab.cli._common import Context, common
from quantlab.errors import QuantlabError


@click.command()
@click.argument("what")
@common
def command(ctx: Context, what: str) -> dict[str, Any]:
    if what == "bad":
        raise QuantlabError("bad\n thing")
    if what == "bug":
        raise KeyError(1)
    if what == "int":
        raise KeyboardInterrupt
    click.echo("noise")
    import os

    os.system("echo cnoise")
    if not ctx.json:
        click.echo("hi")
    return {"a": 1}
