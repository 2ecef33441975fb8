"""Read and write records, whole or not at all: `reports/<model>/data/<variant>/<stage>.json`. Nothing else
does."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from quantlab.errors import QuantlabError
from quantlab.files import write_text
from quantlab.names import BASELINE, parse_variant
from quantlab.parsing import read_object
from quantlab.recipe import Recipe
from quantlab.records import SCHEMA_VERSION, STAGES, Failure, Record, StageName, stage_of
from quantlab.workspace.tracked import settings_sha256

R = TypeVar("R", bound=Record)


def record_path(root: Path, model: str, variant: str, stage: StageName) -> Path:
    """Where the record of a cell and stage lies in a workspace."""
    return root / "reports" / model / "data" / variant / STAGES[stage].file


def write_record(root: Path, record: Record) -> Path:
    """Write a record to its place, with its stage's present version; both follow from its type."""
    stage = stage_of(record)
    path = record_path(root, record.model, record.variant, stage.name)
    write_text(
        path, record.model_copy(update={"stage_version": stage.version}).model_dump_json(indent=2) + "\n"
    )
    return path


def made_with(record: R, recipe: Recipe) -> R:
    """The record with the hash of its stage's part of the recipe that the stage read."""
    return record.model_copy(update={"settings_sha256": _settings(record, recipe)})


def is_stale(record: Record, recipe: Recipe) -> bool:
    """Whether a record was made with other settings than the recipe has; one that does not say with which is
    not."""
    return record.settings_sha256 is not None and record.settings_sha256 != _settings(record, recipe)


def as_stale(record: R) -> R:
    """What is left of a record that was made with other settings: who left it, and why it has no number."""
    stage = stage_of(record)
    keys = ", ".join(key.partition(".")[0] for key in stage.tracked or ())
    reason = f"made with other settings ({keys}) than the recipe has now: run {stage.name} again"
    return type(record)(
        model=record.model, variant=record.variant, failure=Failure(kind="stale", reason=reason)
    )


def _settings(record: Record, recipe: Recipe) -> str | None:
    return settings_sha256(recipe, stage_of(record).name, record.variant)


def read_record(path: Path, kind: type[R]) -> R | None:
    """Read a record; None where there is no file. Raises QuantlabError for a file that is not such a
    record."""
    if not path.exists():
        return None
    data = read_object(path)
    if data.get("schema_version", SCHEMA_VERSION) != SCHEMA_VERSION:
        raise QuantlabError(
            f"{path} has schema version {str(data['schema_version'])[:40]}, this quantlab reads"
            f" {SCHEMA_VERSION}: run its stage again"
        )
    try:
        record = kind.model_validate(data)
    except ValidationError as error:
        raise QuantlabError(
            f"{path} is no {kind.__name__} of this version: {_first(error)}; run its stage again"
        ) from None
    if record.variant != path.parent.name:
        raise QuantlabError(
            f"{path} is a record of {record.variant[:80]!r}, though its folder is {path.parent.name}: run its"
            " stage again"
        )
    return record


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))[:200]
    return f"{where}: {first['msg']}" if where else first["msg"].removeprefix("Value error, ")


def variants_with_records(root: Path, model: str) -> list[str]:
    """Variants of a model that have any record, by method and then from most to fewest bits."""
    return variants_in(root / "reports" / model / "data")


def variants_in(folder: Path) -> list[str]:
    """The same of the folder that holds a model's records."""
    variants = (
        [p.name for p in folder.iterdir() if p.is_dir() and any(p.glob("*.json"))] if folder.is_dir() else []
    )
    return sorted(
        variants,
        key=lambda slug: (slug != BASELINE, parse_variant(slug).method, -parse_variant(slug).bits, slug),
    )
