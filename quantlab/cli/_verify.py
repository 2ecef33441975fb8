"""Run `quantlab doctor --verify`: print each result as it ends, and what failed by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantlab.cli._common import Context, Ending, say

if TYPE_CHECKING:
    from quantlab.records.verification import CheckRecord

FOLDER = "verification"
MARKS = {
    "passed": ("ok", "green"),
    "failed": ("!!", "red"),
    "not_applicable": ("--", None),
    "not_run": ("..", None),
}


def verify_machine(
    ctx: Context, device: str | None, minutes: float, checks: Sequence[str], again: bool
) -> Ending:
    """The verification as JSON has it, with exit code 1 where a check failed. Raises QuantlabError."""
    from quantlab.hardware.device import find
    from quantlab.verification.running import verify

    target = find(device or "auto")
    if not ctx.quiet:
        say(f"verifying {target.name}, for at most {minutes:g} minutes", err=True)
    done = verify(Path.cwd() / FOLDER, target, minutes, checks, again, _teller(ctx))
    failed = done.verification.failed()
    if not ctx.json:
        say(f"\n{done.page_file.relative_to(Path.cwd())}\n{done.json_file.relative_to(Path.cwd())}")
    if failed:
        say(
            f"quantlab: {len(failed)} of {len(done.verification.results)} checks failed:"
            f" {', '.join(result.name for result in failed)}",
            err=True,
        )
    return Ending(done.verification, 1 if failed else 0)


def _teller(ctx: Context) -> Any:
    """Print a result as soon as it is there: with --json, and where nothing is quiet, on standard error."""
    from quantlab.verification.page import line

    def tell(result: CheckRecord, kept: bool) -> None:
        if ctx.json and ctx.quiet:
            return
        mark, colour = MARKS[result.outcome.status]
        shown = click.style(mark, fg=colour) if colour else mark
        say(f"  {line(result)}{' (done before)' if kept else ''}", mark=shown, err=ctx.json)

    return tell
