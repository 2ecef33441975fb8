"""Gate a report in CI: exit code 0 if no variant loses more than allowed, 1 if one does or it is unknown, 2
for wrong usage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from quantlab.cli._common import Context, Ending, common, say
from quantlab.cli._numbers import Finite

if TYPE_CHECKING:
    from quantlab.comparison.gate import Judgement


@click.command()
@click.argument("report", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--max-drop",
    type=Finite(0, 100, min_open=True),
    required=True,
    help="The margin: largest accepted drop of accuracy, in points.",
)
@click.option(
    "--task", "tasks", multiple=True, help="Judge this task; may be repeated. Default: all tasks together."
)
@click.option(
    "--variant",
    "variants",
    multiple=True,
    help="Judge this variant; may be repeated. Default: every quantized one.",
)
@click.option("--allow-undecided", is_flag=True, help="Pass where there are too few items to decide.")
@common
def command(
    ctx: Context,
    report: Path,
    max_drop: float,
    tasks: tuple[str, ...],
    variants: tuple[str, ...],
    allow_undecided: bool,
) -> Ending:
    """Judge a report's accuracy drops against a margin.

    REPORT is reports/MODEL of a workspace, or a copy of it with its data/ and recipe.yaml. Without --task and --variant
    every task and variant of the recipe is judged; one that was not run fails, and a collapsed variant fails at any
    margin. The drop is paired item by item with baseline-16. It passes if the upper end of its 90 % interval is below
    the margin. It fails if the lower end is above the margin, if there are too few items to decide (unless
    --allow-undecided), or if it was not measured. Exit code 0 if all pass, 1 if one fails, 2 for wrong usage.

    \b
    quantlab check reports/smollm2 --max-drop 1.0
    quantlab check reports/smollm2 --max-drop 2 --task piqa --variant gguf-4 --allow-undecided

    With --json: {"passed", "max_drop_points", "judged": [{"variant", "task", "verdict", "passed",
    "drop_points", "lower_points", "upper_points", "n", "reason"}]}, the interval at 90 %."""
    from quantlab.comparison.compare import compare
    from quantlab.comparison.gate import judge
    from quantlab.comparison.load import load_report

    comparison = compare(load_report(report))
    judged = judge(comparison, max_drop, tasks, variants, allow_undecided)
    passed = all(row.passed for row in judged)
    if not ctx.json:
        _print(judged, max_drop)
    return Ending(
        {"passed": passed, "max_drop_points": max_drop, "judged": [row._asdict() for row in judged]},
        0 if passed else 1,
    )


def _print(judged: list[Judgement], max_drop: float) -> None:
    for row in judged:
        colour = "green" if row.passed else "red"
        say(
            f"  {row.variant}  {row.task}: {row.reason}",
            mark=click.style("pass" if row.passed else "FAIL", fg=colour),
        )
    passed = sum(row.passed for row in judged)
    say(f"{passed} of {len(judged)} pass at {max_drop:g} point{'' if max_drop == 1 else 's'}")
