"""Measure how much of the divergence each block, or each linear layer, of a quantized model causes.

Swaps one block of the quantized MODEL (a name in this workspace, or of a run in runs/) into the
unquantized model at a time and measures the divergence; prints the sum of the blocks beside the
divergence of the whole model. Quantize the model first with `quantlab run`. Adds a heat map and a table
to the report.

\b
quantlab sensitivity smollm2 --method gptq --bits 4
quantlab sensitivity smollm2 --method gguf --bits 3 --linears --windows 4

With --json: the record, as in reports/MODEL/data/VARIANT/sensitivity.json."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from quantlab.cli._common import Context, common, say
from quantlab.cli._stage import device_option, workspace_of

if TYPE_CHECKING:
    from quantlab.records import SensitivityRecord


@click.command()
@click.argument("model")
@click.option("--method", required=True, help="The method, such as gptq.")
@click.option("--bits", type=int, required=True, help="The width, such as 4.")
@click.option("--label", default="", help="The variant's label, if it has one.")
@click.option("--linears", is_flag=True, help="Measure each linear layer instead of each block.")
@click.option(
    "--windows",
    type=click.IntRange(1),
    default=8,
    show_default=True,
    help="Windows of the evaluation text to measure on.",
)
@device_option
@common
def command(
    ctx: Context,
    model: str,
    method: str,
    bits: int,
    label: str,
    linears: bool,
    windows: int,
    device: str | None,
) -> Any:
    from quantlab.errors import CellFailure
    from quantlab.hardware.target import target_device
    from quantlab.names import Variant
    from quantlab.stages import report
    from quantlab.stages.isolation import run_isolated
    from quantlab.workspace.cell import Cell

    root = workspace_of(model)
    cell = Cell(root, model, Variant(method, bits, label).slug)
    cell.checkpoint()
    record: Any = run_isolated(
        cell, "sensitivity", target_device(root, device).device, ctx.quiet, linears=linears, windows=windows
    )
    if record.failure:
        raise CellFailure(record.failure.kind, record.failure.reason)
    path = report.run(root, model)
    if not ctx.json:
        _print(record)
        say(str(path))
    return record


def _print(record: SensitivityRecord) -> None:
    total = sum(part.kl_divergence_nats.value for part in record.parts)
    for part in sorted(record.parts, key=lambda p: -p.kl_divergence_nats.value):
        value = part.kl_divergence_nats.value
        say(f"{part.part:32} {value:12.6f} nats  {100 * value / total if total else 0:5.1f} %")
    assert record.whole is not None, "only a failure has none"
    whole = record.whole.value
    say(
        f"{'sum of the parts':32} {total:12.6f} nats, {total / whole if whole else 0:.2f} times the"
        f" {whole:.6f} of the whole model"
    )
