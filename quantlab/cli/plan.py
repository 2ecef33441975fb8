"""Predict the memory that a model needs at every method and width, and on which GPUs it fits, before any
download.

MODEL is an alias, a hub repository, a local folder, a config.json or a GGUF file. Without --gpu the plan
shows, for each kind of GPU, the smallest set that holds each variant, in sizes that divide the attention
heads. A variant "fits" if it fits with the highest published overhead per GPU, and is "tight" if it fits
only with the lowest (sources: quantlab/planning/calibration.yaml). The ceiling is the decode speed that
bandwidth and arithmetic allow: real engines are slower.

\b
quantlab plan llama-3.1-8b --gpu rtx-4090 --context 32k
quantlab plan deepseek-v4-flash --methods gguf,awq
quantlab plan ./config.json --gpu h100:2 --batch 8 --json
quantlab plan --against reports/examples/smollm2

With --json: total_parameters, active_parameters, cache_bytes_per_sequence (at context_tokens, in
cache_dtype), weight_bytes {method: {bits: bytes}}, certain, doubts, warnings, and variants, one object
per method and width with weight_bytes (its tensors), checkpoint_bytes (all its files: the tokenizer as
well) and rigs. All bytes are whole numbers of bytes. With --against: {"rows", "largest_error",
"skipped"}."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantlab.cli._common import Context, common
from quantlab.cli._groups import batch_option, context_option

if TYPE_CHECKING:
    from quantlab.planning.plan import ModelPlan, PlannedWorkload


@click.command()
@click.argument("model", required=False)
@click.option(
    "--gpu",
    "gpu_names",
    multiple=True,
    help="GPUs to fit the model into, such as h100 or h100:2; may be repeated.",
)
@context_option()
@batch_option(1)
@click.option("--methods", help="Methods or variants, separated by commas, such as gptq,awq-4. Default: all.")
@click.option(
    "--cache-dtype",
    default="bfloat16",
    show_default=True,
    help="Type of the key-value cache: bfloat16, float32, fp8, q8_0, q4_0, ...",
)
@click.option(
    "--policy",
    help=(
        "How an engine allocates the cache: exact (what attention needs; the default), transformers,"
        " llama_cpp (the default for a GGUF file) or every_layer_full."
    ),
)
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    help="Compare predictions with the records under this folder, such as reports/.",
)
@common
def command(
    ctx: Context,
    model: str | None,
    gpu_names: tuple[str, ...],
    context: str,
    batch: int,
    methods: str | None,
    cache_dtype: str,
    policy: str | None,
    against: Path | None,
) -> dict[str, Any]:
    from quantlab.errors import QuantlabError
    from quantlab.parsing.sizes import parse_context
    from quantlab.planning.fit import PlannedWorkload

    if against:
        return _against(ctx, against, model)
    if model is None:
        raise QuantlabError(
            "name a MODEL to plan (`quantlab list models`), or a folder of records with --against"
        )
    workload = PlannedWorkload(
        context_tokens=parse_context(context), batch=batch, cache_dtype=cache_dtype, policy=policy
    )
    plan, source = _plan(model, gpu_names, workload, methods)
    if not ctx.json:
        _print(plan, source)
    return {**plan.model_dump(mode="json"), "source": source, "weight_bytes": plan.weight_bytes}


def _plan(
    model: str, gpu_names: tuple[str, ...], workload: PlannedWorkload, methods: str | None
) -> tuple[ModelPlan, str]:
    from quantlab.catalogue.gpu import parse_gpus
    from quantlab.models.ingredients import ingredients
    from quantlab.planning.fit import plan_model

    rigs = [parse_gpus(name) for name in gpu_names]
    chosen = _methods(methods)
    known = ingredients(model)
    plan = plan_model(
        known.config,
        name=known.name,
        rigs=rigs,
        workload=workload,
        methods=chosen,
        counted=known.counted,
        warnings=known.warnings,
        folder=known.folder,
        file=known.file,
    )
    return plan, known.source


def _methods(text: str | None) -> list[str]:
    """Split --methods into its names, none if it is not given. Raises QuantlabError if it is empty."""
    from quantlab.errors import QuantlabError

    names = [name.strip() for name in (text or "").split(",") if name.strip()]
    if text is not None and not names:
        raise QuantlabError(
            f"--methods {text!r} names no method: write some, separated by commas, or leave it out for all"
        )
    return names


def _print(plan: ModelPlan, source: str) -> None:
    from quantlab.inert import console
    from quantlab.planning.plan_tables import about, notes, rig_tables, smallest_table

    screen = console(width=None if console().is_terminal else 160)
    for line in about(plan, source):
        screen.print(line)
    for table in rig_tables(plan) if plan.gpus_asked else [smallest_table(plan)]:
        screen.print(table)
    for sentence in notes(plan):
        screen.print(f"- {sentence}", soft_wrap=True)


def _against(ctx: Context, folder: Path, model: str | None) -> dict[str, Any]:
    from quantlab.parsing import as_path
    from quantlab.planning.against import compare, largest_errors
    from quantlab.planning.plan_tables import against_table

    rows, skipped = compare(as_path(str(folder)), model)
    worst = largest_errors(rows)
    if not ctx.json:
        from quantlab.inert import console

        screen = console(width=None if console().is_terminal else 160)
        screen.print(against_table(rows))
        for row in worst:
            screen.print(f"largest error in {row.quantity}: {row.error:+.1%}, {row.model} {row.variant}")
        for sentence in skipped:
            screen.print(f"- {sentence}", soft_wrap=True)
    return {
        "rows": [row.model_dump() for row in rows],
        "largest_error": {row.quantity: row.model_dump() for row in worst},
        "skipped": list(skipped),
    }
