"""Quantize a model, measure it, and write its report.

MODEL is an alias (`quantlab list models`), a hub repository (org/name@revision), a local folder or a GGUF
file. Several --method and --bits run every combination; without --bits a method runs at every width that it
offers. The 16-bit variants, which the others are compared with, are added. DVC runs the work in a workspace,
runs/MODEL: run the same command again and only what is missing or changed runs; ask for another variant and
its cell is added."""

from __future__ import annotations

from typing import Any

import click

from quantlab.cli._common import Context, common
from quantlab.cli._run_options import RunOptions, run, run_options


@click.command()
@click.argument("model")
@click.option("--method", "methods", multiple=True, help="A method, such as awq; may be repeated.")
@click.option("--bits", multiple=True, type=click.IntRange(min=1), help="A bit width; may be repeated.")
@click.option(
    "--variant",
    "variants",
    multiple=True,
    help="A variant of the recipe, such as gguf-4-iq4_xs; may be repeated.",
)
@click.option(
    "--checkpoint",
    "checkpoints",
    multiple=True,
    help=(
        "Measure a checkpoint that somebody else made of MODEL: a folder, a GGUF file, org/name@revision or"
        " org/name@revision:FILE.gguf; may be repeated."
    ),
)
@run_options
@common
def command(
    ctx: Context,
    model: str,
    methods: tuple[str, ...],
    bits: tuple[int, ...],
    variants: tuple[str, ...],
    checkpoints: tuple[str, ...],
    options: RunOptions,
) -> dict[str, Any]:
    from quantlab.errors import QuantlabError
    from quantlab.names import parse_variant
    from quantlab.run.request import variants_of

    wanted = [v.slug for v in variants_of(methods, bits)]
    wanted += [parse_variant(slug).slug for slug in variants]
    if bits and not methods:
        raise QuantlabError("--bits needs --method: name the method that should quantize to that width")
    return run(ctx, model, wanted, checkpoints, options)
