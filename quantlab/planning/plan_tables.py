"""Show a plan as tables in a terminal. Memory is in GiB (2^30 bytes) per GPU, checkpoints are in GB (10^9
bytes)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from rich.table import Table

from quantlab.numbers import listing
from quantlab.planning.against import Prediction
from quantlab.planning.calibration import calibration
from quantlab.planning.plan import ModelPlan, RigPlan, VariantPlan
from quantlab.planning.rig import SIZES, engine_of, splits_by_layers

_GIB, _GB = 2**30, 10**9
_OWN_BITS = re.compile(r"the [\d.]+ bits")


def about(plan: ModelPlan, source: str) -> list[str]:
    """What the plan is of, in a few lines."""
    sure = "" if plan.certain else " (not certain: see below)"
    used = (
        f", {parameters(plan.active_parameters)} used per token"
        if plan.active_parameters != plan.total_parameters
        else ""
    )
    lines = [f"{plan.model}: {plan.total_parameters:,} parameters{used}{sure}; {source}"]
    if plan.cache_bytes_per_sequence is not None:
        kinds = ", ".join(f"{kind} {size:,}" for kind, size in plan.cache_bytes_by_kind.items())
        held = {
            p: size for p, size in plan.cache_bytes_by_policy.items() if size != plan.cache_bytes_per_sequence
        }
        what = f"cache of one sequence of {plan.context_tokens:,} tokens in {plan.cache_dtype}"
        lines.append(f"{what}: {plan.cache_bytes_per_sequence:,} bytes ({kinds})")
        if held:
            lines.append(
                f"as engines keep it: {', '.join(f'{policy} {size:,}' for policy, size in held.items())}"
            )
    return lines


def parameters(number: int) -> str:
    """A number of parameters, such as 8.03B."""
    return f"{number / 1e9:.4g}B" if number >= 1e9 else f"{number / 1e6:.4g}M"


def rig_tables(plan: ModelPlan) -> list[Table]:
    """One table per set of GPUs that was asked for."""
    return [_rig_table(plan, i) for i in range(max((len(v.rigs) for v in plan.variants), default=0))]


def _rig_table(plan: ModelPlan, i: int) -> Table:
    first = next(v.rigs[i] for v in plan.variants if v.rigs)
    each = " each" if first.gpus > 1 else ""
    overhead = " or ".join(
        dict.fromkeys(
            _overhead(v) for v in sorted(plan.variants, key=lambda v: splits_by_layers(v.method)) if v.rigs
        )
    )
    title = (
        f"{first.gpus} × {first.gpu}, {first.usable_bytes / _GIB:.1f} GiB usable{each}; batch {plan.batch},"
        f" {plan.context_tokens:,} tokens\nGiB per GPU; the total has an overhead of {overhead}; the verdict"
        " shows spare (+) or missing (−) GiB per GPU"
    )
    table = Table(title=title, title_justify="left", header_style="bold")
    for name in (
        "variant",
        "file GB",
        "bits per\nweight",
        "weights",
        "cache",
        "activa-\ntions",
        "total",
        "verdict",
    ):
        table.add_column(name, justify="left" if name in ("variant", "verdict") else "right", no_wrap=True)
    for name in ("longest\ncontext", "largest\nbatch", "ceiling\ntokens/s"):
        table.add_column(name, justify="right", no_wrap=True)
    for variant in plan.variants:
        table.add_row(
            *_start(variant),
            *(_cells(variant.rigs[i]) if variant.rigs else ["–"] * 4 + [variant.reason, "–", "–", "–"]),
        )
    return table


def _overhead(variant: VariantPlan) -> str:
    rig = variant.rigs[0]
    engine = f" in {engine_of(variant.method).title}" if splits_by_layers(variant.method) else ""
    return f"{rig.overhead_bytes / _GIB:.1f}–{rig.overhead_high_bytes / _GIB:.1f}{engine}"


def _start(variant: VariantPlan) -> list[str]:
    known = variant.weight_bytes is not None
    return [
        variant.slug,
        f"{(variant.checkpoint_bytes or variant.weight_bytes or 0) / _GB:,.2f}" if known else "–",
        f"{variant.bits_per_weight:.2f}" if variant.bits_per_weight else "–",
    ]


def _cells(rig: RigPlan) -> list[str]:
    ceiling = rig.decode_ceiling_tokens_per_second
    return [
        f"{rig.weights_bytes / _GIB:,.2f}",
        f"{rig.cache_bytes / _GIB:,.2f}" if rig.cache_bytes else "–",
        f"{rig.activation_bytes / _GIB:.2f}" if rig.activation_bytes else "–",
        f"{rig.total_bytes / _GIB:,.1f}–{rig.total_high_bytes / _GIB:,.1f}",
        verdict(rig),
        f"{rig.largest_context_tokens:,}" if rig.largest_context_tokens else "–",
        f"{rig.largest_batch:,}" if rig.largest_batch else "–",
        f"{ceiling:,.0f}" if ceiling else "–",
    ]


def verdict(rig: RigPlan) -> str:
    """Whether it fits, with what is spare or lacking in GiB per GPU."""
    amount = f"{'+' if rig.spare_bytes >= 0 else '−'}{abs(rig.spare_bytes) / _GIB:,.1f}"
    return f"{amount} before its cache" if rig.verdict == "unknown" else f"{rig.verdict} {amount}"


def smallest_table(plan: ModelPlan) -> Table:
    """Per variant, the smallest set of each kind of GPU."""
    title = (
        f"smallest sets of GPUs that hold each variant; batch {plan.batch}, {plan.context_tokens:,} tokens"
    )
    table = Table(title=title, title_justify="left", header_style="bold")
    for name in ("variant", "file GB", "bits/weight"):
        table.add_column(name, justify="left" if name == "variant" else "right", no_wrap=True)
    table.add_column("GPUs")
    for variant in plan.variants:
        table.add_row(*_start(variant), variant.reason or by_size(variant.rigs))
    return table


def by_size(rigs: Sequence[RigPlan]) -> str:
    """Kinds of GPUs by how many of them it takes."""
    sizes: dict[int, list[str]] = {}
    for rig in rigs:
        sizes.setdefault(rig.gpus, []).append(rig.gpu)
    named = "; ".join(f"{size} × {', '.join(names)}" for size, names in sorted(sizes.items()))
    if any(rig.verdict == "unknown" for rig in rigs):
        return f"before its cache: {named}"
    return named or f"no set of up to {SIZES[-1]} GPUs"


def notes(plan: ModelPlan) -> list[str]:
    """Doubts, warnings, and what the variants and GPUs have to say, each sentence once."""
    by_note: dict[str, list[str]] = {}
    for variant in plan.variants:
        for note in variant.notes:
            by_note.setdefault(_OWN_BITS.sub("the bits", note), []).append(variant.slug)
    rigs = [rig for variant in plan.variants for rig in variant.rigs]
    guessed = ", ".join(dict.fromkeys(rig.gpu for rig in rigs if rig.usable_estimated))
    sentences = [*plan.doubts, *plan.warnings, *dict.fromkeys(note for rig in rigs for note in rig.notes)]
    sentences += _vllm(plan) if plan.gpus_asked else []
    sentences += [f"the memory that a process sees is estimated for {guessed}"] if guessed else []
    return sentences + [f"{_named(slugs, plan)}: {note}" for note, slugs in by_note.items()]


def _vllm(plan: ModelPlan) -> list[str]:
    """What does not fit the share of a GPU that vLLM takes unless told otherwise, one sentence for all
    GPUs."""
    share, short = calibration().gpu.vllm_share, dict[str, list[str]]()
    for variant in plan.variants:
        for rig in variant.rigs:
            if rig.fits_vllm_share is False:
                short.setdefault(f"{rig.gpus} × {rig.gpu}", []).append(variant.slug)
    if not any(rig.fits_vllm_share is not None for variant in plan.variants for rig in variant.rigs):
        return []
    told = f"vLLM uses {share:g} of a GPU by default (--gpu-memory-utilization)"
    named = "; ".join(f"{listing(slugs)} on {where}" for where, slugs in short.items())
    return [
        f"{told}:"
        f" {f'too large for that: {named}' if named else 'every variant that fits also fits into that'}"
    ]


def _named(slugs: Sequence[str], plan: ModelPlan) -> str:
    return "all variants" if len(slugs) == len(plan.variants) else ", ".join(slugs)


def against_table(rows: Iterable[Prediction]) -> Table:
    """Prediction, measurement and error."""
    table = Table(header_style="bold")
    for name in ("model", "variant", "quantity", "predicted", "measured", "error"):
        table.add_column(
            name, justify="left" if name in ("model", "variant", "quantity") else "right", no_wrap=True
        )
    for row in rows:
        table.add_row(
            row.model,
            row.variant,
            f"{row.quantity}, {row.unit}",
            _plain(row.predicted),
            _plain(row.measured),
            f"{row.error:+.1%}",
        )
    return table


def _plain(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:,.2f}"
