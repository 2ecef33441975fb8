"""Measure checkpoints that others published against the model that they were made of.

BASE is the unquantized model, named as for `quantlab run`. A CHECKPOINT is a folder, a GGUF file (of a
split one the first part), a repository on the hub (org/name@revision) or a GGUF file in one
(org/name@revision:FILE.gguf). Read are GPTQ, AWQ, bitsandbytes, GGUF, auto-round, FP8, compressed-tensors,
ModelOpt's FP8 and NVFP4, and MXFP4 as gpt-oss is released; others are refused by name. What a checkpoint
changed beside the weights (tokenizer settings, chat template, generation config) is listed. The work is
that of `quantlab run BASE --checkpoint ...`, in the same workspace.

\b
quantlab compare ./my-model ./my-model-awq ./my-model.Q4_K_M.gguf
quantlab compare Qwen/Qwen3-0.6B RedHatAI/Qwen3-0.6B-quantized.w4a16 --tasks piqa --limit 200

With --json: the object of `quantlab run`, and "checkpoints": {VARIANT: {"checkpoint", "hub", "revision",
"notes"}}."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from quantlab.cli._common import Context, common, say
from quantlab.cli._run_options import RunOptions, run, run_options


@click.command()
@click.argument("base")
@click.argument("checkpoints", nargs=-1, required=True, metavar="CHECKPOINT...")
@run_options
@common
def command(ctx: Context, base: str, checkpoints: tuple[str, ...], options: RunOptions) -> dict[str, Any]:
    result = run(ctx, base, [], checkpoints, options)
    described = _described(Path(result["workspace"]), result["model"], result["variants"])
    if not ctx.json and result["report"]:
        for slug, about in described.items():
            say(f"{slug}: {about['hub'] or about['checkpoint']}")
            for note in about["notes"]:
                say(f"- {note}")
    return {**result, "checkpoints": described}


def _described(root: Path, model: str, variants: list[str]) -> dict[str, dict[str, Any]]:
    """Where each checkpoint came from, and what its record notes."""
    from quantlab.methods import checked_recipe, settings_in
    from quantlab.names import parse_variant
    from quantlab.records import QuantizeRecord
    from quantlab.workspace.results import read_record, record_path

    recipe = checked_recipe(root / "recipes" / f"{model}.yaml")
    described = {}
    for variant in filter(lambda each: each.external, map(parse_variant, variants)):
        record = read_record(record_path(root, model, variant.slug, "quantize"), QuantizeRecord)
        settings = settings_in(recipe, variant).model_dump(mode="json")
        described[variant.slug] = {**settings, "notes": list(record.notes) if record else []}
    return described
