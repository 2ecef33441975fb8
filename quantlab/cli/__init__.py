"""The command line: one file per command in this folder; the file's name is the command's name.

A command's file begins with a docstring whose first line is what `quantlab --help` shows, and defines `command`.
It is read as text for the help and imported only when the command is invoked. A `command` without a docstring of its
own takes the file's.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from quantlab import __version__
from quantlab.cli._common import fail
from quantlab.errors import QuantlabError, unknown

SECTIONS = {
    "Run": ("run", "list", "show", "doctor", "clean", "init"),
    "Stages, in the order of the pipeline": (
        "probe",
        "prepare",
        "convert",
        "reference",
        "quantize",
        "measure",
        "diverge",
        "evaluate",
        "report",
    ),
}

EPILOG = """\b
Examples:
  quantlab doctor                                      what works on this machine, and what is missing
  quantlab list models                                 names that MODEL can be
  quantlab run smollm2 --method gguf --bits 4          quantize, measure, write a report
  quantlab run Qwen/Qwen3.5-4B --method gptq --method awq --bits 4
  quantlab run ./my-model --method gguf --bits 8 --bits 4 --bits 2
  quantlab show gguf-4                                 all that is known of a variant here

MODEL is an alias, a hub repository (org/name@revision), a local folder or a GGUF file. `quantlab COMMAND --help` says
more of each command; with --json a command prints one JSON object."""


class LazyGroup(click.Group):
    """The commands of this folder, each imported when it is invoked."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(m.name.replace("_", "-") for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"{__name__}.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        command.name = cmd_name
        command.help = command.help or module.__doc__
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in self.list_commands(ctx):
            raise unknown("command", args[0], self.list_commands(ctx), "see `quantlab --help`")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        left = self.list_commands(ctx)
        for section, names in SECTIONS.items():
            self._section(formatter, section, [name for name in names if name in left])
            left = [name for name in left if name not in names]
        self._section(formatter, "More", left)

    def _section(self, formatter: click.HelpFormatter, title: str, names: Sequence[str]) -> None:
        if names:
            with formatter.section(title):
                formatter.write_dl([(name, short_help(name)) for name in names])

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, *_: Any, **extra: Any) -> NoReturn:
        """Run the command line and leave with its exit code; wrong usage is one line and code 2."""
        given = list(sys.argv[1:] if args is None else args)
        as_json = "--json" in given
        try:
            code = super().main(given, prog_name or "quantlab", **{**extra, "standalone_mode": False})
        except QuantlabError as error:
            fail("usage", str(error), 2, as_json)
        except click.NoSuchOption as error:
            fail("usage", str(_no_such_option(error)), 2, as_json)
        except click.ClickException as error:
            fail("usage", _in_one_line(error), 2, as_json)
        except click.Abort:
            fail("interrupted", "interrupted", 130, as_json)
        sys.exit(code if isinstance(code, int) else 0)


def _in_one_line(error: click.ClickException) -> str:
    where = f"; see `{error.ctx.command_path} --help`" if isinstance(error, click.UsageError) and error.ctx else ""
    return error.format_message().rstrip(".") + where


def short_help(name: str) -> str:
    """First line of a command's docstring, read without importing it."""
    path = Path(__path__[0]) / f"{name.replace('-', '_')}.py"
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return docstring.split("\n", 1)[0]


def _no_such_option(error: click.NoSuchOption) -> QuantlabError:
    context = error.ctx
    options = [name for parameter in context.command.get_params(context) for name in parameter.opts] if context else []
    return unknown("option", error.option_name, (name for name in options if name.startswith("--")))


@click.group(
    cls=LazyGroup,
    epilog=EPILOG,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
@click.version_option(__version__, prog_name="quantlab")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Quantize a language model, measure what it saves and what it costs, and write a report."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
