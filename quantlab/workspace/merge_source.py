"""Read the records that another machine made, from a copy of its reports/MODEL folder.

Only files that are records of this version are read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from quantlab.errors import QuantlabError
from quantlab.names import check_model_name, parse_variant
from quantlab.parsing import read_object
from quantlab.records import SCHEMA_VERSION, STAGES, Record, StageName
from quantlab.workspace.results import read_record

MERGED: tuple[StageName, ...] = tuple(stage.name for stage in STAGES.values() if stage.merged)
_MOST_BYTES = 64 * 2**20
"""A larger file is not a record: no record comes near it."""


def data_folder(source: Path) -> Path:
    """Find the folder with one folder per variant. Raises QuantlabError where there is none."""
    for data in (source / "data", source):
        if data.is_dir() and any(
            path.is_file() for stage in MERGED for path in data.glob(f"*/{STAGES[stage].file}")
        ):
            return data
    raise QuantlabError(
        f"{source} holds no records: name the other machine's reports/MODEL folder, its data folder, or a"
        " copy of one"
    )


def model_of(data: Path) -> str:
    """Read which model the records of a data folder name. Raises QuantlabError if they name several."""
    named = {
        str(_json(path).get("model"))
        for stage in MERGED
        for path in sorted(data.glob(f"*/{STAGES[stage].file}"))
    }
    if len(named) != 1:
        raise QuantlabError(
            f"{data} holds records of several models ({', '.join(sorted(named))}): name one with --model"
        )
    return check_model_name(named.pop())


def records_below(data: Path, model: str) -> Iterator[Record]:
    """Read every record of a model in a data folder. Raises QuantlabError for any that cannot be merged."""
    for folder in sorted(path for path in data.iterdir() if path.is_dir()):
        for stage in MERGED:
            path = folder / STAGES[stage].file
            if path.exists():
                yield _read(path, stage, model)


def _read(path: Path, stage: StageName, model: str) -> Record:
    data, slug = _json(path), parse_variant(path.parent.name).slug
    if data.get("schema_version") != SCHEMA_VERSION:
        raise QuantlabError(
            f"{path} has schema version {data.get('schema_version')!r}, this quantlab reads {SCHEMA_VERSION}:"
            " use the same version on both"
        )
    record = read_record(path, STAGES[stage].record)
    assert record is not None
    _check_stage_version(path, stage, record)
    if record.model != model:
        raise QuantlabError(
            f"{path} is a record of {record.model!r}, not of {model}: name its model with --model"
        )
    if record.variant != slug:
        raise QuantlabError(
            f"{path} is a record of {record.variant!r}, though its folder is {slug}: copy the folder as it"
            " was written"
        )
    return record


def _check_stage_version(path: Path, stage: StageName, record: Record) -> None:
    """Refuse a record of another version of its stage, or of none."""
    here, merged = STAGES[stage].version, record.stage_version
    if merged != here:
        said = "says no version of its stage" if merged is None else f"has version {merged} of its stage"
        raise QuantlabError(
            f"{path} {said}, this quantlab reads {here}: use the same version on both, and measure again"
            " there"
        )


def _json(path: Path) -> dict[str, Any]:
    return read_object(path, _MOST_BYTES)


def stage_name(record: Record) -> StageName:
    """Name the stage that leaves records of this type."""
    return next(stage for stage in MERGED if isinstance(record, STAGES[stage].record))
