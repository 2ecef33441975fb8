"""Compare the greedy answers of two variants: words that differ, first token that differs, length."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantlab.cli._common import Context, common, say
from quantlab.cli._stage import device_option, workspace_of

if TYPE_CHECKING:
    from quantlab.evaluation.generation import GeneratedAnswer
    from quantlab.hardware.device import Device
    from quantlab.workspace.cell import Cell


@click.command()
@click.argument("model")
@click.argument("first")
@click.argument("second")
@click.option(
    "--prompts",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Text file with one prompt per line, or .jsonl. Default: prompts that come with quantlab.",
)
@click.option(
    "--tokens",
    type=click.IntRange(1),
    default=128,
    show_default=True,
    help="Largest number of tokens of an answer.",
)
@device_option
@common
def command(
    ctx: Context, model: str, first: str, second: str, prompts: Path | None, tokens: int, device: str | None
) -> dict[str, Any]:
    """Compare the greedy answers of two variants of MODEL, side by side.

    FIRST and SECOND are variants with a checkpoint, such as baseline-16 and gptq-4. Words that only FIRST
    says are struck out, words that only SECOND says are highlighted. The comparison is also written to
    reports/MODEL/diff/FIRST--SECOND.md.

    \b
    quantlab diff smollm2 baseline-16 gguf-2
    quantlab diff smollm2 gguf-16 gguf-4 --prompts mine.txt --tokens 64

    Lengths and the first token that differs are counted in the tokens that the models generated. An answer that reaches
    --tokens is cut off and marked so.

    With --json: {"model", "first", "second", "limit_tokens", "identical", "mean_tokens": [a, b], "cut_off":
    [a, b], "longer": {"first", "second", "same", "unknown"}, "answers": [{"prompt", "first", "second",
    "tokens": [a, b], "ended": [a, b], "first_divergent_token"}], "report"}."""
    from quantlab.comparison.answers import compare_answers
    from quantlab.evaluation.generation import read_prompts
    from quantlab.files import write_text
    from quantlab.hardware.target import target_device
    from quantlab.reporting.sidebyside import as_json, markdown, terminal
    from quantlab.workspace.cell import Cell

    root, asked = workspace_of(model), read_prompts(prompts)
    cells = [Cell(root, model, slug) for slug in (first, second)]
    answers = _answers(ctx, cells, target_device(root, device), asked, tokens)
    comparison = compare_answers(model, (first, second), tokens, asked, answers[0], answers[1])
    path = root / "reports" / model / "diff" / f"{first}--{second}.md"
    write_text(path, markdown(comparison))
    if not ctx.json:
        terminal(comparison)
        say(str(path))
    return {**as_json(comparison), "report": str(path)}


def _answers(
    ctx: Context, cells: list[Cell], target: Device, prompts: list[str], tokens: int
) -> list[list[GeneratedAnswer]]:
    """Let each cell's checkpoint answer the prompts, after all were found to be there."""
    from quantlab.evaluation.generation import generate
    from quantlab.progress import noise_to
    from quantlab.scratch import scratch
    from quantlab.stages.isolation import environment_of
    from quantlab.workspace.logs import log_path

    for cell in cells:
        cell.checkpoint()
        os.environ.update(environment_of(cell, "evaluate", target.device))
    answers = []
    for cell in cells:
        with scratch(cell.root), noise_to(log_path(cell, "diff"), ctx.quiet) as progress:
            answers.append(generate(cell, target, prompts, tokens, progress))
    return answers
