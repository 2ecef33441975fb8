"""Name the device of each record, and split a table into one per device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from quantlab.comparison.load import ModelRecords, VariantRecords
from quantlab.inert import Markdown
from quantlab.reporting.table import Column, Row, Table

UNKNOWN = "device not recorded"


class DevicePart(NamedTuple):
    """One device's rows of a table, as a reader sees them."""

    device: str
    table: Markdown


def device_of(records: ModelRecords, variant: VariantRecords) -> str:
    """Where a variant's memory and speed were measured; one that never ran stands with the others."""
    if variant.measure and variant.measure.device and not variant.measure.failure:
        return variant.measure.device
    return home(records)


def home(records: ModelRecords) -> str:
    """The device of most of the measurements, else the workspace's."""
    measured = [v.measure.device for v in records.variants.values() if v.measure and v.measure.device]
    return Counter(measured).most_common(1)[0][0] if measured else str(records.device.get("name") or UNKNOWN)


def per_device(table: Table, columns: Callable[[Sequence[Row]], tuple[Column, ...]]) -> list[DevicePart]:
    """The table's rows by their value of `device`, in order of appearance, each part with the columns that
    its rows need."""
    devices = dict.fromkeys(str(row.values["device"]) for row in table.rows)
    parts = {device: tuple(row for row in table.rows if row.values["device"] == device) for device in devices}
    return [
        DevicePart(device, table._replace(rows=rows, columns=columns(rows)).markdown())
        for device, rows in parts.items()
    ]
