"""List the catalogue's models, the methods, the engines or the tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import click

from quantlab.cli._common import Context, common, say
from quantlab.errors import unknown

Rows = list[dict[str, Any]]


@click.command()
@click.argument("what", metavar="models|methods|engines|tasks")
@common
def command(ctx: Context, what: str) -> dict[str, Rows]:
    """List the catalogue's models, the methods, the engines or the tasks.

    \b
    models    names that MODEL can be, and where their weights are
    methods   ways of quantizing, their bit widths, and the pip command that installs a missing one
    engines   programs that run checkpoints, and the command that installs a missing one
    tasks     lm-eval tasks by task set

    With --json: {"models": [...]} (or methods, engines, tasks), one object per row; the keys are those of the
    columns."""
    if what not in LISTS:
        raise unknown("list", what, LISTS)
    if what == "tasks" and not ctx.quiet:
        say("reading lm-eval's tasks; this takes about ten seconds", err=True)
    rows = LISTS[what]()
    if not ctx.json:
        _print(rows)
        if what == "models":
            from quantlab.catalogue import user_file

            say(
                "\nMODEL can also be org/name[@revision], a local folder or a GGUF file. Your own names:"
                f" {user_file()}"
            )
    return {what: rows}


def _models() -> Rows:
    from quantlab.catalogue import entries

    return [
        {
            "name": name,
            "parameters": entry.parameters,
            "license": entry.license,
            "where": (
                entry.place if entry.exists else f"no known release; nearest: {', '.join(entry.nearest)}"
            ),
            "note": entry.note,
        }
        for name, entry in entries().items()
    ]


def _methods() -> Rows:
    from quantlab import methods
    from quantlab.environments.install import missing

    return [
        {
            "name": name,
            "bits": list(method.bits),
            "format": method.format,
            **_state(missing(method.requires), method.extra),
            "summary": method.summary,
        }
        for name in methods.names()
        for method in (methods.load(name),)
    ]


def _engines() -> Rows:
    from quantlab import engines

    return [
        {
            "name": name,
            "formats": list(engine.formats),
            **_state(engine.lacks(), engine.extra, engine.install),
            "summary": engine.summary,
        }
        for name in engines.names()
        for engine in (engines.load(name),)
    ]


def _tasks() -> Rows:
    from quantlab.evaluation import tasksets

    return [
        {"set": name, "summary": (taskset := tasksets.load(name)).SUMMARY, "tasks": list(taskset.names())}
        for name in tasksets.names()
    ]


def _state(absent: tuple[str, ...], extra: str | None, install: str | None = None) -> dict[str, Any]:
    from quantlab.environments.install import bring, bring_extra

    command = None if not absent else install or (bring_extra(extra) if extra else bring(absent[0]))
    return {"installed": not absent, "install": command}


LISTS: dict[str, Callable[[], Rows]] = {
    "models": _models,
    "methods": _methods,
    "engines": _engines,
    "tasks": _tasks,
}


def _print(rows: Rows) -> None:
    cells = [{key: _cell(key, value) for key, value in row.items()} for row in rows]
    columns = [key for key in (cells[0] if cells else {}) if any(row[key] for row in cells)]
    widths = {key: max(len(key), *(len(row[key]) for row in cells)) for key in columns}
    last = columns[-1] if columns else ""
    for row in ({key: key for key in columns}, *cells):
        say("  ".join(row[key] if key == last else row[key].ljust(widths[key]) for key in columns).rstrip())


def _cell(key: str, value: Any) -> str:
    if key == "parameters" and value:
        return f"{value / 1e9:.4g}B" if value >= 1e9 else f"{value / 1e6:.4g}M"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key == "tasks" and len(value) > 20:
        return f"{', '.join(value[:20])} and {len(value) - 20} more (--json shows all)"
    if isinstance(value, Iterable) and not isinstance(value, str):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)
