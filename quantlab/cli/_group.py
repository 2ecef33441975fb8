"""Find each command by its file's name, read its help as text, and import it only when it is invoked."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from quantlab.cli._common import fail
from quantlab.errors import QuantlabError, unknown

FOLDER = Path(__file__).parent
SECTIONS = {
    "Choose": ("plan", "recommend", "cost"),
    "Run": ("run", "compare", "endpoint", "list", "show", "doctor", "install", "clean"),
    "Judge the measurements": ("check", "diff", "sensitivity", "merge"),
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


class LazyGroup(click.Group):
    """The commands of this folder, each imported when it is invoked."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(
            m.name.replace("_", "-")
            for m in pkgutil.iter_modules([str(FOLDER)])
            if not m.name.startswith("_")
        )

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"{__package__}.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        command.name = cmd_name
        command.help = command.help or module.__doc__
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
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

    def main(
        self, args: Sequence[str] | None = None, prog_name: str | None = None, *_: Any, **extra: Any
    ) -> NoReturn:
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
    where = (
        f"; see `{error.ctx.command_path} --help`"
        if isinstance(error, click.UsageError) and error.ctx
        else ""
    )
    return error.format_message().rstrip(".") + where


def short_help(name: str) -> str:
    """First paragraph of a command's file without the command's name before it, read without importing the
    file."""
    path = FOLDER / f"{name.replace('-', '_')}.py"
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(docstring.split("\n\n", 1)[0].split()).removeprefix(f"{name}: ")


def _no_such_option(error: click.NoSuchOption) -> QuantlabError:
    context = error.ctx
    options = (
        [name for parameter in context.command.get_params(context) for name in parameter.opts]
        if context
        else []
    )
    return unknown("option", error.option_name, (name for name in options if name.startswith("--")))
