"""Derive the status of a variant from all its records."""

from __future__ import annotations

from typing import NamedTuple

from quantlab.comparison.load import VariantRecords, failure_text, kind_words
from quantlab.comparison.nearest import compare_nearest
from quantlab.records import STAGES

COLLAPSED = "collapsed: its perplexity on the check text is above the vocabulary's size, worse than guessing"


class Failed(NamedTuple):
    """Why a variant has no number at all."""

    kind: str
    reason: str


class Status(NamedTuple):
    """How far a variant came."""

    name: str
    """`measured`, `suspicious`, `collapsed`, `partly measured` or `failed`."""
    failed: Failed | None
    """Set where there is no number at all."""
    reason: str | None
    """Why the name is not `measured`."""


def status_of(variant: VariantRecords) -> Status:
    """The status of a variant, from all its records."""
    failures = [record.failure for record in variant.records.values() if record.failure]
    whole = variant.failure or (failures[0] if len(failures) == len(variant.records) else None)
    if whole:
        return Status("failed", Failed(kind_words(whole.kind), failure_text(whole)), failure_text(whole))
    if failures:
        return Status("partly measured", None, "; ".join(dict.fromkeys(map(failure_text, failures))))
    if variant.quantize and variant.quantize.collapsed:
        return Status("collapsed", None, COLLAPSED)
    if suspicion := compare_nearest(variant).suspicion:
        return Status("suspicious", None, suspicion)
    lacking = [stage.name for stage in STAGES.values() if stage.merged and stage.name not in variant.records]
    return (
        Status("partly measured", None, f"no record of {', '.join(lacking)}")
        if lacking
        else Status("measured", None, None)
    )
