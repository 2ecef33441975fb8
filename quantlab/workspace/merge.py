"""Merge a model's records from another machine into `imported/<device>/<model>/`, outside what DVC produces.

    device.json                      the device's name here, and what the records call it
    data/<variant>/measure.json      and divergence.json, tasks.json where there were any

Nothing of another checkpoint, model or version comes in, and nothing comes in by halves. Names become slugs;
only files that are records of this version are written, from their parsed values, so nothing else of the
source is ever copied."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from quantlab.errors import QuantlabError, unknown
from quantlab.files import new_folder, write_json, write_text
from quantlab.frozen import Frozen
from quantlab.names import check_model_name, parse_variant
from quantlab.parsing import read_object
from quantlab.recipe import read_recipe
from quantlab.records import (
    SCHEMA_VERSION,
    STAGES,
    DivergenceRecord,
    MeasureRecord,
    Record,
    StageName,
    TaskRecord,
)
from quantlab.workspace.checkpoint import read_checkpoint
from quantlab.workspace.results import read_record, record_path, variants_with_records

MERGED: tuple[StageName, ...] = tuple(stage.name for stage in STAGES.values() if stage.merged)
_MOST_BYTES = 64 * 2**20
"""No record comes near it; a larger file is none."""


class About(Frozen):
    """device.json."""

    name: str
    """What reports of this workspace call it."""
    device: str
    """What the records call it."""


class Brought(NamedTuple):
    """What another machine recorded of a variant."""

    measure: MeasureRecord | None
    divergence: DivergenceRecord | None
    tasks: TaskRecord | None


class Import(NamedTuple):
    """One other device's records of a model."""

    name: str
    variants: dict[str, Brought]


class Merged(NamedTuple):
    """What `merge` brought in."""

    device: str
    folder: Path
    records: dict[str, tuple[StageName, ...]]
    """Stages by variant."""


def imports(root: Path, model: str, left_out: list[str] | None = None) -> tuple[Import, ...]:
    """All that was merged into a workspace for a model, by device.

    A folder that is not readable is left out, and a sentence that names it is added to `left_out`; without
    such a list it raises QuantlabError."""
    found = []
    for folder in sorted(
        path.parent for path in (root / "imported").glob(f"*/{check_model_name(model)}/device.json")
    ):
        try:
            found.append(Import(_about(folder).name, _brought(folder / "data")))
        except QuantlabError as error:
            if left_out is None:
                raise
            where = folder.relative_to(root).as_posix()
            left_out.append(
                f"What was merged into {where} is left out: {str(error).replace(f'{root}/', '')}. Remove it"
                " and merge again."
            )
    return tuple(found)


def _about(folder: Path) -> About:
    path = folder / "device.json"
    data = read_object(path)
    try:
        return About.model_validate(data)
    except ValidationError:
        raise QuantlabError(f"{path} is damaged: remove {folder} and merge again") from None


def _brought(data: Path) -> dict[str, Brought]:
    folders = sorted(path for path in data.iterdir() if path.is_dir()) if data.is_dir() else []
    return {
        folder.name: Brought(
            read_record(folder / "measure.json", MeasureRecord),
            read_record(folder / "divergence.json", DivergenceRecord),
            read_record(folder / "tasks.json", TaskRecord),
        )
        for folder in folders
    }


def merge(root: Path, source: Path, model: str, device_name: str | None = None) -> Merged:
    """Bring the records below `source` into the workspace `root`; the same again changes nothing.

    `source` is a reports/MODEL folder, its data folder, or a copy of either. Raises QuantlabError, with
    nothing written, for records of another model, checkpoint or version, of a variant that is not known here,
    and of this device."""
    found = list(_records_below(data_folder(source), model))
    _check_variants(root, model, {record.variant for record in found})
    for record in found:
        _check_checkpoint(root, record)
    about = _device(root, model, found, device_name)
    folder = root / "imported" / device_slug(about.name) / model
    if (folder / "device.json").is_file() and _about(folder) != about:
        known = _about(folder)
        raise QuantlabError(
            f"{folder} holds records of {known.device} under the name {known.name}: give another"
            " --device-name"
        )
    _write(folder, about, found)
    stages: dict[str, tuple[StageName, ...]] = {}
    for record in found:
        stages[record.variant] = (*stages.get(record.variant, ()), _stage(record))
    return Merged(about.name, folder, stages)


def data_folder(source: Path) -> Path:
    """The folder with one folder per variant. Raises QuantlabError where there is none."""
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
    """The model that the records of a data folder name. Raises QuantlabError where they name none or
    several."""
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


def device_slug(name: str) -> str:
    """A folder name for a device in words. Raises QuantlabError where no letter or digit is in it."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:80].strip("-")
    if not slug:
        raise QuantlabError(f"{name!r} cannot name a device: use letters and digits")
    return slug


def _records_below(data: Path, model: str) -> Iterator[Record]:
    for folder in sorted(path for path in data.iterdir() if path.is_dir()):
        for stage in MERGED:
            path = folder / f"{STAGES[stage].file}"
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


def _check_variants(root: Path, model: str, slugs: set[str]) -> None:
    recipe = root / "recipes" / f"{model}.yaml"
    if not recipe.is_file():
        raise unknown(
            "model in this workspace", model, (path.stem for path in (root / "recipes").glob("*.yaml"))
        )
    known = {*read_recipe(recipe).variants, *variants_with_records(root, model)}
    for slug in sorted(slugs - known):
        raise unknown(f"variant of {model} in this workspace", slug, known)


def _check_checkpoint(root: Path, record: Record) -> None:
    if why := of_another_checkpoint(root, record):
        raise QuantlabError(why)


def of_another_checkpoint(root: Path, record: Record) -> str | None:
    """Why a record is not of this workspace's checkpoint as it is now; None where it is.

    A failure that names no checkpoint has no number, and so is of none.
    """
    merged = record.checkpoint_sha256
    if merged is None and record.failure is not None:
        return None
    local = _checkpoint_here(root, record.model, record.variant)
    if local is None:
        return (
            f"there is no checkpoint and no record of {record.variant} here to compare with: quantize it in"
            " this workspace, then copy that checkpoint to the other machine and measure it there"
        )
    if merged == local:
        return _of_another_partner(root, record)
    return (
        f"the {_stage(record)} record of {record.variant} is of another checkpoint"
        f" ({(merged or 'none named')[:12]}) than this workspace's ({local[:12]}): measure the same files on"
        " both machines"
    )


def _of_another_partner(root: Path, record: Record) -> str | None:
    """Why a record's ratios are not against this workspace's 16-bit variant; None where they are, or where it
    is not here."""
    beside = record.speed.baseline if isinstance(record, MeasureRecord) and record.speed else None
    local = _checkpoint_here(root, record.model, beside.variant) if beside else None
    if beside is None or local is None or beside.checkpoint_sha256 == local:
        return None
    return (
        f"the measure record of {record.variant} was timed beside another {beside.variant}"
        f" ({beside.checkpoint_sha256[:12]}) than this workspace's ({local[:12]}): measure the same files on"
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


def _device(root: Path, model: str, found: list[Record], device_name: str | None) -> About:
    named = sorted({record.device for record in found if isinstance(record, MeasureRecord) and record.device})
    if len(named) != 1:
        what = (
            f"are of several devices ({', '.join(named)})"
            if named
            else "name no device that memory and speed were measured on"
        )
        raise QuantlabError(f"the records {what}: merge a folder with the measure.json files of one device")
    device, here = named[0], _devices_here(root, model)
    if device in here and device_name is None:
        raise QuantlabError(
            f"the records are of {device}, which is this workspace's device too: tell the two apart with"
            " --device-name NAME"
        )
    name = _plain(device_name or device)
    if device_slug(name) in {device_slug(own) for own in here}:
        raise QuantlabError(
            f"{name} is what this workspace's own device is called: give another --device-name"
        )
    return About(name=name, device=device)


def _devices_here(root: Path, model: str) -> set[str]:
    about = root / "env" / "device.json"
    probed = {str(_json(about).get("name"))} if about.is_file() else set()
    records = (
        read_record(record_path(root, model, slug, "measure"), MeasureRecord)
        for slug in variants_with_records(root, model)
    )
    return (probed | {record.device for record in records if record and record.device}) - {"None"}


def _plain(name: str) -> str:
    """One line without what markdown or a terminal would act on."""
    return " ".join(re.sub(r"[^\w .,:;+×()/@-]", " ", name).split())[:100]


def _stage(record: Record) -> StageName:
    return next(stage for stage in MERGED if isinstance(record, STAGES[stage].record))


def _write(folder: Path, about: About, found: list[Record]) -> None:
    """All at once, over what was merged before of other variants and stages."""
    with new_folder(folder) as partial:
        if folder.is_dir():
            shutil.copytree(folder, partial, dirs_exist_ok=True)
        write_json(partial / "device.json", about.model_dump())
        for record in found:
            write_text(
                partial / "data" / record.variant / f"{_stage(record)}.json",
                record.model_dump_json(indent=2) + "\n",
            )
