"""Check that a record belongs to this workspace's checkpoints: the same weights, the same 16-bit variant."""

from __future__ import annotations

from pathlib import Path

from quantlab.errors import QuantlabError, unknown
from quantlab.recipe import read_recipe
from quantlab.records import STAGES, MeasureRecord, Record
from quantlab.workspace.checkpoint import read_checkpoint
from quantlab.workspace.merge_source import MERGED, stage_name
from quantlab.workspace.results import read_record, record_path, variants_with_records


def check_variants(root: Path, model: str, slugs: set[str]) -> None:
    """Raise QuantlabError for a variant that neither the recipe nor a record here names."""
    recipe = root / "recipes" / f"{model}.yaml"
    if not recipe.is_file():
        raise unknown(
            "model in this workspace", model, (path.stem for path in (root / "recipes").glob("*.yaml"))
        )
    known = {*read_recipe(recipe).variants, *variants_with_records(root, model)}
    for slug in sorted(slugs - known):
        raise unknown(f"variant of {model} in this workspace", slug, known)


def check_checkpoint(root: Path, record: Record) -> None:
    """Raise QuantlabError for a record of another checkpoint than this workspace's."""
    if why := of_another_checkpoint(root, record):
        raise QuantlabError(why)


def of_another_checkpoint(root: Path, record: Record) -> str | None:
    """Say why a record does not belong to this workspace's checkpoint as it is now; None if it does.

    A failure that names no checkpoint belongs to any: it has no number that could be compared.
    """
    merged = record.checkpoint_sha256
    if merged is None and record.failure is not None:
        return None
    here = _checkpoint_here(root, record.model, record.variant)
    if here is None:
        return (
            f"there is no checkpoint and no record of {record.variant} here to compare with: quantize it in"
            " this workspace, then copy that checkpoint to the other machine and measure it there"
        )
    if merged == here:
        return _of_another_partner(root, record)
    return (
        f"the {stage_name(record)} record of {record.variant} is of another checkpoint"
        f" ({(merged or 'none named')[:12]}) than this workspace's ({here[:12]}): measure the same files on"
        " both machines"
    )


def _of_another_partner(root: Path, record: Record) -> str | None:
    """Say why a record's ratios are against another 16-bit variant than this workspace's; None if they are
    not, or if that variant has no checkpoint here."""
    beside = record.speed.baseline if isinstance(record, MeasureRecord) and record.speed else None
    here = _checkpoint_here(root, record.model, beside.variant) if beside else None
    if beside is None or here is None or beside.checkpoint_sha256 == here:
        return None
    return (
        f"the measure record of {record.variant} was timed beside another {beside.variant}"
        f" ({beside.checkpoint_sha256[:12]}) than this workspace's ({here[:12]}): measure the same files on"
        " both machines"
    )


def _checkpoint_here(root: Path, model: str, slug: str) -> str | None:
    folder = root / "checkpoints" / model / slug
    if (folder / "manifest.json").is_file():
        return read_checkpoint(folder).sha256
    for stage in MERGED:
        record = read_record(record_path(root, model, slug, stage), STAGES[stage].record)
        if record and record.checkpoint_sha256:
            return record.checkpoint_sha256
    return None
