"""What a model needs at every method and width, and on which GPUs it fits, before anything is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantlab.cli._common import Context, common

if TYPE_CHECKING:
    from quantlab.planning.plan import ModelPlan


@click.command()
@click.argument("model", required=False)
@click.option("--gpu", "gpu_names", multiple=True, help="GPUs that hold it, such as h100 or h100:2; may be repeated.")
@click.option("--context", default="8k", show_default=True, help="Tokens in each sequence's cache: 8192, 32k (32 × 1024) or 1M.")
@click.option("--batch", type=click.IntRange(min=1, max=2**24), default=1, show_default=True, help="Sequences at once.")
@click.option("--methods", help="Methods or variants, separated by commas, such as gptq,awq-4; default: all.")
@click.option("--cache-dtype", default="bfloat16", show_default=True, help="bfloat16, float32, fp8, q8_0, q4_0, ...")
@click.option(
    "--policy", default="exact", show_default=True, help="How the engine keeps the cache: exact, transformers, llama_cpp, every_layer_full."
)
@click.option("--against", type=click.Path(path_type=Path), help="Set predictions beside the records under this folder, such as reports/.")
@common
def command(ctx: Context, model: str | None, **options: Any) -> dict[str, Any]:
    """What a model needs at every method and width, and on which GPUs it fits, before anything is downloaded.

    MODEL is an alias, a hub repository, a local folder, a config.json or a GGUF file. Without --gpu each variant is given
    the smallest set of each kind of GPU that holds it, in sizes that divide the attention heads. A variant fits with the
    highest overhead per GPU that is quoted, and is tight where it fits with the lowest alone (quantlab/planning/
    calibration.yaml says where the constants come from). The ceiling is what bandwidth and arithmetic allow: real engines
    are slower.

    \b
    quantlab plan llama-3.1-8b --gpu rtx-4090 --context 32k
    quantlab plan deepseek-v4-flash --methods gguf,awq
    quantlab plan ./config.json --gpu h100:2 --batch 8 --json
    quantlab plan --against reports/examples/smollm2

    With --json: total_parameters, active_parameters, cache_bytes_per_sequence (at context_tokens, in cache_dtype),
    weight_bytes {method: {bits: bytes}}, certain, doubts, warnings, and variants, one object per method and width with
    weight_bytes (its tensors), checkpoint_bytes (all its files: the tokenizer as well) and rigs. All bytes are whole
    numbers of bytes. With --against alone: {"rows", "largest_error"}.
    """
    from quantlab.errors import QuantlabError

    if options["against"]:
        return _against(ctx, options["against"], model)
    if model is None:
        raise QuantlabError("name a MODEL to plan (`quantlab list models`), or a folder of records with --against")
    plan, source = _plan(model, options)
    if not ctx.json:
        _print(plan, source)
    return {**plan.model_dump(mode="json"), "source": source, "weight_bytes": plan.weight_bytes}


def _plan(model: str, options: dict[str, Any]) -> tuple[ModelPlan, str]:
    from quantlab.catalogue.gpu import parse_gpus
    from quantlab.planning.fit import Workload, plan_model
    from quantlab.planning.resolve import ingredients
    from quantlab.planning.sizes import parse_context

    workload = Workload(
        context_tokens=parse_context(options["context"]),
        batch=options["batch"],
        cache_dtype=options["cache_dtype"],
        policy=options["policy"],
    )
    rigs = [parse_gpus(name) for name in options["gpu_names"]]
    methods = _methods(options["methods"])
    found = ingredients(model)
    plan = plan_model(
        found.config,
        name=found.name,
        rigs=rigs,
        workload=workload,
        methods=methods,
        counted=found.counted,
        warnings=found.warnings,
        folder=found.folder,
    )
    return plan, found.source


def _methods(text: str | None) -> list[str]:
    """The methods and variants that --methods names, none where it is not given. Raises QuantlabError where it names none."""
    from quantlab.errors import QuantlabError

    found = [name.strip() for name in (text or "").split(",") if name.strip()]
    if text is not None and not found:
        raise QuantlabError(f"--methods {text!r} names no method: write some, separated by commas, or leave it out for all")
    return found


def _print(plan: ModelPlan, source: str) -> None:
    from quantlab.inert import console
    from quantlab.planning.tables import about, notes, rig_tables, smallest_table

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
    from quantlab.planning.tables import against_table

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
