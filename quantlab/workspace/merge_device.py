"""Name the device that merged records come from."""

from __future__ import annotations

import re
from pathlib import Path

from quantlab.errors import QuantlabError
from quantlab.parsing import read_object
from quantlab.records import MeasureRecord, Record
from quantlab.workspace.imported import About
from quantlab.workspace.results import read_record, record_path, variants_with_records


def device_slug(name: str) -> str:
    """Make a folder name of a device's name. Raises QuantlabError if it has no letter or digit."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:80].strip("-")
    if not slug:
        raise QuantlabError(f"{name!r} cannot name a device: use letters and digits")
    return slug


def device_of(root: Path, model: str, records: list[Record], device_name: str | None) -> About:
    """Name the one device of the records. Raises QuantlabError where they are of none, of several, or of this
    workspace's own device."""
    named = sorted(
        {record.device for record in records if isinstance(record, MeasureRecord) and record.device}
    )
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
    probed = {str(read_object(about).get("name"))} if about.is_file() else set()
    records = (
        read_record(record_path(root, model, slug, "measure"), MeasureRecord)
        for slug in variants_with_records(root, model)
    )
    return (probed | {record.device for record in records if record and record.device}) - {"None"}


def _plain(name: str) -> str:
    """Remove what markdown or a terminal would act on, line breaks included."""
    return " ".join(re.sub(r"[^\w .,:;+×()/@-]", " ", name).split())[:100]
