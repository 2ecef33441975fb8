"""Show a choice to a person or a script: rows with marked cells, what would change it, and the next
commands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from quantlab.catalogue import Entry
from quantlab.engines import Served
from quantlab.names import BASELINE, parse_variant
from quantlab.numbers import significant
from quantlab.planning.serving import measure, serve, serve_release
from quantlab.recommend.candidates import RELEASED
from quantlab.recommend.choice import Change, ModelChoice, RankedCandidate
from quantlab.recommend.quantity import UNKNOWN, Quantity, quantity_text
from quantlab.recommend.request import ASPECTS, Candidate, ModelRequest

MARKS = {"measured": "m", "interpolated": "i", "estimated": "e", "unknown": "?"}
LEGEND = (
    "m measured here, i interpolated from measured neighbours, e estimated or planned, ? not known (--json"
    " names each source)"
)
HEADERS = (
    "#",
    "model",
    "variant",
    "ability",
    "drop (points)",
    "KL (nats)",
    "decode tokens/s",
    "memory (GB)",
    "context",
    "licence",
    "open",
)


def rows(choice: ModelChoice, top: int, every_variant: bool, use: str | None) -> list[tuple[str, ...]]:
    """The first `top` rows, one per model unless `every_variant`."""
    return [_row(place, ranked, use) for place, ranked in enumerate(shown(choice, top, every_variant), 1)]


def shown(choice: ModelChoice, top: int, every_variant: bool) -> list[RankedCandidate]:
    """The candidates of the rows."""
    seen: set[str] = set()
    chosen = []
    for ranked in choice.ranked:
        if every_variant or ranked.candidate.model not in seen:
            chosen.append(ranked)
            seen.add(ranked.candidate.model)
    return chosen[:top]


def _row(place: int, ranked: RankedCandidate, use: str | None) -> tuple[str, ...]:
    c = ranked.candidate
    score = c.scores.get(use or "", UNKNOWN)
    size = f"{c.parameters / 1e9:.3g}B" if c.parameters else "?"
    return (
        str(place),
        c.model,
        c.variant,
        f"{score.value:.1f} % quoted" if score.value is not None else f"{size}, no score",
        _cell(c.drop_points, lambda v: f"{v:.2g}"),
        _cell(c.divergence_nats, lambda v: f"{v:.2g}"),
        _cell(c.decode_tokens_per_second, significant),
        _cell(c.memory_bytes, lambda v: f"{v / 1e9:.1f}"),
        f"{c.context_tokens:,}" if c.context_tokens else "?",
        c.licence or "?",
        ", ".join(each.limit.name for each in ranked.open) or "none",
    )


def _cell(quantity: Quantity, text: Callable[[float], str]) -> str:
    shown = quantity_text(quantity, text) if quantity.value is not None else ""
    return f"{shown} {MARKS[quantity.kind]}".strip()


def changes(choice: ModelChoice) -> list[str]:
    """What would change the answer, one sentence each."""
    return [_change(each) for each in choice.changes]


def _change(change: Change) -> str:
    if change.then is None:
        return f"if {change.if_}: no other candidate is known to keep that limit"
    return f"if {change.if_}: {change.then.model} {change.then.variant} would be first"


def rejections(choice: ModelChoice) -> str:
    """How many were rejected, and by which limit."""
    counts = Counter(each.limit.name for rejected in choice.rejected for each in rejected.failed)
    counts["licence"] += sum(bool(rejected.licence) for rejected in choice.rejected)
    order = [*(aspect.name for aspect in ASPECTS), "licence"]
    named = ", ".join(f"{name} {counts[name]}" for name in order if counts[name])
    return f"{len(choice.rejected)} rejected" + (f" (by {named}; one may fail several)" if named else "")


def serving(root: Path, candidate: Candidate, entry: Entry | None, context_tokens: int, gpus: int) -> Served:
    """How the candidate is served: its checkpoint here where there is one, else where `quantlab run` will
    write it."""
    source = (entry.hub or entry.path or entry.place) if entry else candidate.model
    if candidate.variant == RELEASED:
        return serve_release(source, candidate.model, context_tokens, gpus, candidate.not_parallel)
    folder = checkpoint_folder(root, candidate.model, candidate.variant)
    name = f"{candidate.model}-{candidate.variant}"
    return serve(
        parse_variant(candidate.variant),
        folder.as_posix(),
        source,
        name,
        context_tokens,
        gpus,
        candidate.not_parallel,
    )


def checkpoint_folder(root: Path, model: str, variant: str) -> Path:
    """Where the checkpoint lies, relative to the folder: here, in a run, or where a run will write it."""
    places = [Path("checkpoints") / model / variant, Path("runs") / model / "checkpoints" / model / variant]
    return next((place for place in places if (root / place / "manifest.json").is_file()), places[-1])


def untried(candidate: Candidate) -> str | None:
    """What the plan cannot know of a variant that was never made here; None where it was measured."""
    if (
        candidate.drop_points.kind == "measured"
        or candidate.variant == RELEASED
        or candidate.variant == BASELINE
    ):
        return None
    return (
        f"not made here yet; whether {parse_variant(candidate.variant).method} can quantize this architecture"
        " is known only after a run"
    )


def measuring(candidate: Candidate) -> str:
    """The command that measures the candidate; of a release that is stored quantized, its dequantized
    weights."""
    if candidate.variant == RELEASED:
        return measure(candidate.model, parse_variant(BASELINE))
    return measure(candidate.model, parse_variant(candidate.variant))


def as_json(request: ModelRequest, choice: ModelChoice) -> dict[str, Any]:
    """The choice for a script."""
    return {
        "request": request._asdict(),
        "ranked": [
            {**_candidate(r.candidate), "open": [j.limit.name for j in r.open], "reasons": r.reasons}
            for r in choice.ranked
        ],
        "rejected": [
            {"model": r.candidate.model, "variant": r.candidate.variant, "reasons": r.reasons}
            for r in choice.rejected
        ],
        "changes": [
            {
                "limit": c.limit,
                "if": c.if_,
                "then": {"model": c.then.model, "variant": c.then.variant} if c.then else None,
            }
            for c in choice.changes
        ],
    }


def _candidate(candidate: Candidate) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in candidate._asdict().items():
        if isinstance(value, Quantity):
            values[key] = value._asdict()
        elif key == "scores":
            values[key] = {use: score._asdict() for use, score in candidate.scores.items()}
        else:
            values[key] = value
    return values


def licences(candidates: Sequence[Candidate]) -> set[str]:
    """Every licence that a candidate has."""
    return {candidate.licence.lower() for candidate in candidates if candidate.licence}
