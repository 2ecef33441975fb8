"""Compare the greedy answers of two variants: words that differ, first token that differs, length."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from quantlab.cli._common import Context, common, say
from quantlab.cli._stage import device_option, workspace_of


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
    from quantlab.evaluation.generation import generate, read_prompts
    from quantlab.files import write_text
    from quantlab.hardware.target import target_device
    from quantlab.progress import noise_to
    from quantlab.reporting.sidebyside import as_json, markdown, terminal
    from quantlab.scratch import scratch
    from quantlab.stages.isolation import environment_of
    from quantlab.workspace.cell import Cell
    from quantlab.workspace.logs import log_path

    root, asked = workspace_of(model), read_prompts(prompts)
    target = target_device(root, device)
    answers = []
    for slug in (first, second):
        cell = Cell(root, model, slug)
        cell.checkpoint()
        os.environ.update(environment_of(cell, "evaluate", target.device))
    for slug in (first, second):
        cell = Cell(root, model, slug)
        with scratch(root), noise_to(log_path(cell, "diff"), ctx.quiet) as progress:
            answers.append(generate(cell, target, asked, tokens, progress))
    found = compare_answers(model, (first, second), tokens, asked, answers[0], answers[1])
    path = root / "reports" / model / "diff" / f"{first}--{second}.md"
    write_text(path, markdown(found))
    if not ctx.json:
        terminal(found)
        say(str(path))
    return {**as_json(found), "report": str(path)}
