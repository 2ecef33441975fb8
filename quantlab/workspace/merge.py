"""Merge a model's records from another machine into `imported/<device>/<model>/`.

Records of another checkpoint, model or version are refused, and then nothing is written. Records are written
from their parsed values, under slugs, so that nothing else of the source is ever copied."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

from quantlab.errors import QuantlabError
from quantlab.files import new_folder, write_json, write_text
from quantlab.records import Record, StageName
from quantlab.workspace.imported import About, read_about
from quantlab.workspace.merge_device import device_of, device_slug
from quantlab.workspace.merge_source import data_folder, records_below, stage_name
from quantlab.workspace.same_checkpoint import check_checkpoint, check_variants


class Merged(NamedTuple):
    """What `merge` brought in."""

    device: str
    folder: Path
    records: dict[str, tuple[StageName, ...]]
    """Stages by variant."""


def merge(root: Path, source: Path, model: str, device_name: str | None = None) -> Merged:
    """Bring the records below `source` into the workspace `root`; the same again changes nothing.

    `source` is a reports/MODEL folder, its data folder, or a copy of either. Raises QuantlabError, with
    nothing written, for records of another model, checkpoint or version, of a variant that is not known here,
    and of this device."""
    records = list(records_below(data_folder(source), model))
    check_variants(root, model, {record.variant for record in records})
    for record in records:
        check_checkpoint(root, record)
    about = device_of(root, model, records, device_name)
    folder = root / "imported" / device_slug(about.name) / model
    if (folder / "device.json").is_file() and read_about(folder) != about:
        known = read_about(folder)
        raise QuantlabError(
            f"{folder} holds records of {known.device} under the name {known.name}: give another"
            " --device-name"
        )
    _write(folder, about, records)
    stages: dict[str, tuple[StageName, ...]] = {}
    for record in records:
        stages[record.variant] = (*stages.get(record.variant, ()), stage_name(record))
    return Merged(about.name, folder, stages)


def _write(folder: Path, about: About, records: list[Record]) -> None:
    """Write all records or none, beside those of other variants and stages that were merged before."""
    with new_folder(folder) as partial:
        if folder.is_dir():
            shutil.copytree(folder, partial, dirs_exist_ok=True)
        write_json(partial / "device.json", about.model_dump())
        for record in records:
            write_text(
                partial / "data" / record.variant / f"{stage_name(record)}.json",
                record.model_dump_json(indent=2) + "\n",
            )
