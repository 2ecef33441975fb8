"""Write docs/architectures.md from the results of architectures.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import _cells

from quantlab.models.tiny import families

Results = Mapping[tuple[str, str], Mapping[str, Any]]
TIMES, FLOOR_NATS = 2.0, 0.05
"""A figure is wrong above so many times plain rounding's at the same width, and so many nats more."""
NOISE_NATS = 1e-4
"""Of a GGUF file in 16 bits, where no token goes to other experts than in the reference."""
_HEAD = """# Architectures

Every method on a tiny random model of every family, in the released shape of proportions, through quantize
and its check, diverge, evaluate and a generation; `python benchmarks/architectures.py` writes this page.

A cell that works shows its mean KL divergence from the unquantized model in nats. The column rounding-4 is
plain rounding to the nearest of 16 levels in groups of 32 columns. A figure is wrong above twice that (at the
variant's width) and 0.05 nats. GGUF is held against rounding of head and embedding too, which it rounds. FP8
keeps four significant bits of weights and activations: above rounding-4 it is wrong. A GGUF file of 16 bits
is wrong above 0.0001, but in a mixture of experts: `(re)` says that a token near a tie went to another
expert, which counts on a text of 508 tokens.

`%` is the share of all weights that stayed in 16 or 32 bits, where it is more than 10 % of what the method's
name promises. A tiny random model loses more than a trained one: the figures compare methods on one family,
and say nothing of a released model's loss.
"""


def page(results: Results) -> str:
    """The whole page."""
    names = list(dict.fromkeys(name for name, _ in results))
    variants = [v for v in _cells.VARIANTS if any((name, v) in results for name in names)]
    table = [
        "| family | rounding-4 | " + " | ".join(variants) + " |",
        "|:---|---:|" + "---:|" * len(variants),
        *(_row(name, variants, results) for name in names),
    ]
    done, every = sum(bool(variant) for _, variant in results), len(families()) * len(_cells.VARIANTS)
    ran = f"{done} of {every} cells have been run so far; an empty one has not."
    parts = [
        _HEAD + "\n" + ran,
        _counts(results, variants),
        "\n".join(table),
        _reasons(results, names, variants),
    ]
    return "\n\n".join(parts) + "\n\n" + _unavailable()


def outcome(cell: Mapping[str, Any], rounded: Mapping[str, float], variant: str) -> str:
    """works, wrong, refused or fails."""
    if "nats" not in cell:
        kinds = ("refused", "unsupported", "not_offered", "not_installed", "does_not_fit", "not_measured")
        return "refused" if cell.get("kind") in kinds else "fails"
    bits = variant.split("-")[1]
    if bits == "16":  # nothing is rounded: only a token that goes to other experts may tell
        return "wrong" if cell["nats"] > (FLOOR_NATS if cell.get("rerouted") else NOISE_NATS) else "works"
    if variant.startswith("fp8"):  # E4M3 keeps four significant bits, of weights and of what enters a layer
        return "wrong" if cell["nats"] > rounded.get("4", 0.0) + NOISE_NATS else "works"
    plain = rounded.get(bits, 0.0)
    if variant.startswith("gguf"):  # llama.cpp rounds head and embedding too
        plain = max(plain, rounded.get(f"{bits}-whole", 0.0))
    return "wrong" if cell["nats"] > TIMES * plain + FLOOR_NATS else "works"


def _rounded(results: Results, name: str) -> Mapping[str, float]:
    found: Mapping[str, float] = results.get((name, ""), {}).get("rounded", {})
    return found


def _row(name: str, variants: list[str], results: Results) -> str:
    rounded = _rounded(results, name)
    plain = f"{rounded['4']:.3f}" if rounded else "-"
    return f"| {name} | {plain} | " + " | ".join(_cell(name, v, results) for v in variants) + " |"


def _cell(name: str, variant: str, results: Results) -> str:
    cell = results.get((name, variant))
    if cell is None:
        return ""
    said = outcome(cell, _rounded(results, name), variant)
    if said not in ("works", "wrong"):
        return said
    promised = cell.get("promised_in_16_bits") or 0.0
    left = f" ({cell['in_16_bits']:.0%})" if promised > 0.1 else ""
    left += " (re)" if variant.endswith("-16") and cell.get("rerouted") else ""
    wrong = " **wrong**" if said == "wrong" else ""
    return f"{cell['nats']:.3g}{left}{wrong}"


def _counts(results: Results, variants: list[str]) -> str:
    lines = ["| variant | works | refused | fails | wrong |", "|:---|---:|---:|---:|---:|"]
    for variant in variants:
        said = [
            outcome(cell, _rounded(results, name), variant)
            for (name, v), cell in results.items()
            if v == variant
        ]
        numbers = (str(said.count(kind)) for kind in ("works", "refused", "fails", "wrong"))
        lines.append(f"| {variant} | " + " | ".join(numbers) + " |")
    return "\n".join(lines)


def _reasons(results: Results, names: list[str], variants: list[str]) -> str:
    lines = ["## What did not work, and what does instead"]
    for name in names:
        shared = results.get((name, ""), {})
        if "rounded" not in shared:
            lines.append(f"- **{name}**: {shared.get('reason', 'not run')}")
        for variant in variants:
            cell = results.get((name, variant))
            if cell is None or outcome(cell, _rounded(results, name), variant) == "works":
                continue
            plain = _rounded(results, name).get(variant.split("-")[1], 0.0)
            why = cell.get("reason") or f"{cell['nats']:.3g} nats; plain rounding {plain:.3g}"
            nearest = _nearest(name, variant, results, variants)
            where = f" in {cell['stage']}" if cell.get("stage") else ""
            lines.append(f"- **{name}, {variant}**{where}: {why}.{nearest}")
    return "\n".join(lines)


def _nearest(name: str, variant: str, results: Results, variants: list[str]) -> str:
    """The best variant of the family at the same width, else at the next one up."""
    bits = int(variant.split("-")[1])
    rounded = _rounded(results, name)
    good = [
        (int(v.split("-")[1]), cell["nats"], v)
        for v in variants
        if (cell := results.get((name, v))) and outcome(cell, rounded, v) == "works"
    ]
    above = sorted(entry for entry in good if entry[0] >= bits)
    return f" Nearest that works: {above[0][2]} ({above[0][1]:.3g} nats)." if above else ""


def _unavailable() -> str:
    lines = [f"- **{n}**: {f.unavailable}." for n, f in families().items() if f.unavailable]
    return "\n".join(["## Families without a tiny model", *lines]) + "\n" if lines else ""
