"""Run the command line: one file per command in this folder, named as the command.

A command's file begins with a docstring whose first line is what `quantlab --help` shows, and defines
`command`. It is read as text for the help and imported only when the command is invoked. A `command` without
a docstring of its own takes the file's. The group itself stands in _group.py: in this file an imported `list`
would hide the built-in one."""

from __future__ import annotations

import click

from quantlab import __version__
from quantlab.cli._group import LazyGroup
from quantlab.processors import limit_threads

EPILOG = """\b
Examples:
  quantlab doctor                                      check what works on this machine and what is missing
  quantlab list models                                 list the names that MODEL can be
  quantlab plan llama-3.1-8b --gpu rtx-4090            see what fits before anything is downloaded
  quantlab recommend --vram 24GB --context 32k         choose a model and a variant
  quantlab run smollm2 --method gguf --bits 4          quantize, measure, write a report
  quantlab run Qwen/Qwen3.5-4B --method gptq --method awq --bits 4
  quantlab run ./my-model --method gguf --bits 8 --bits 4 --bits 2
  quantlab show gguf-4                                 show its settings, checkpoint and records

MODEL is an alias, a hub repository (org/name@revision), a local folder or a GGUF file. `quantlab COMMAND --help` explains
each command; with --json a command prints one JSON object."""


@click.group(
    "quantlab",
    cls=LazyGroup,
    epilog=EPILOG,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
@click.version_option(__version__, prog_name="quantlab")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Quantize a language model, measure memory, speed and quality loss, and write a report."""
    limit_threads()
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
