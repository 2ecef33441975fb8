"""Install a library that cannot live beside quantlab's own into an environment of its own."""

from __future__ import annotations

from typing import Any

import click

from quantlab.cli._common import Context, common, say
from quantlab.errors import QuantlabError


@click.command()
@click.argument("name")
@click.option("--cpu", "device", flag_value="cpu", help="The build for a CPU, whatever the machine has.")
@click.option("--gpu", "device", flag_value="gpu", help="The build for a GPU, whatever the machine has.")
@click.option("--again", is_flag=True, help="Remove it first, and make it anew.")
@common
def command(ctx: Context, name: str, device: str | None, again: bool) -> dict[str, Any]:
    """Install a library that cannot live beside quantlab's own into an environment of its own.

    The versions are exactly those of the lock that quantlab ships, in quantlab's cache; uv installs them
    where it is on the path, else pip. What was broken off goes on where it stopped. On a machine without an
    NVIDIA GPU the build for a CPU is taken. `quantlab doctor` shows what there is.

    \b
    quantlab install vllm            then: quantlab run MODEL --method gptq --bits 4 --engine vllm

    With --json: {"name", "version", "path", "python", "made_by", "seconds"}"""
    from quantlab.environments import locked
    from quantlab.environments.making import make, remove
    from quantlab.hardware.device import gpus
    from quantlab.progress import Progress

    gpu = device == "gpu" or (device is None and bool(gpus()))
    one = locked.suited(name, gpu)
    if again:
        remove(one)
    before = one.state
    if not (ctx.quiet or before == "ready"):
        say(f"{one.title}: {one.name} {one.version}, in {one.folder}", err=True)
    try:
        make(one, Progress(quiet=ctx.quiet or ctx.json))
    except OSError as error:
        raise QuantlabError(f"{one.folder} cannot be made: {error}") from error
    made = one.made()
    if not ctx.json:
        done = "is there already" if before == "ready" else f"installed in {made['seconds']:.0f} s"
        say(f"{one.name} {one.version} {done}")
    return {
        "name": one.name,
        "version": one.version,
        "path": str(one.folder),
        "python": str(one.python),
        "made_by": made["made_by"],
        "seconds": made["seconds"],
    }
