"""Read what `quantlab merge` brought from other machines.

It lies in `imported/<device>/<model>/`, outside what DVC produces:

    device.json                      the device's name here, and what the records call it
    data/<variant>/measure.json      and divergence.json, tasks.json where there were any"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from quantlab.errors import QuantlabError
from quantlab.frozen import Frozen
from quantlab.names import check_model_name
from quantlab.parsing import read_object
from quantlab.records import DivergenceRecord, MeasureRecord, TaskRecord
from quantlab.workspace.results import read_record


class About(Frozen):
    """The content of device.json."""

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
    """The records of a model from one other device."""

    name: str
    variants: dict[str, Brought]


def imports(root: Path, model: str, left_out: list[str] | None = None) -> tuple[Import, ...]:
    """Read all that was merged into a workspace for a model, by device.

    A folder that cannot be read is left out, and a sentence that names it is added to `left_out`; without
    such a list it raises QuantlabError."""
    devices = []
    for folder in sorted(
        path.parent for path in (root / "imported").glob(f"*/{check_model_name(model)}/device.json")
    ):
        try:
            devices.append(Import(read_about(folder).name, _brought(folder / "data")))
        except QuantlabError as error:
            if left_out is None:
                raise
            where = folder.relative_to(root).as_posix()
            left_out.append(
                f"What was merged into {where} is left out: {str(error).replace(f'{root}/', '')}. Remove it"
                " and merge again."
            )
    return tuple(devices)


def read_about(folder: Path) -> About:
    """Read device.json. Raises QuantlabError."""
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
