"""Fill the report's Memory and Speed sections: one table per device, and the sentences below them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from quantlab.comparison.load import ModelRecords
from quantlab.inert import Markdown, markdown
from quantlab.reporting.ceilings import above_one, bandwidths, far_below
from quantlab.reporting.conditions import condition_warnings
from quantlab.reporting.memory import memory_columns
from quantlab.reporting.places import DevicePart, per_device
from quantlab.reporting.speed import absences, speed_columns
from quantlab.reporting.table import Table


def hardware(devices: Sequence[ModelRecords], tables: Mapping[str, Table]) -> dict[str, Any]:
    """The template's values; `devices` are this workspace's records first, then each other device's."""
    speed, memory = tables["speed"], tables["memory"]
    kinds = {row.values["decode_ratio_kind"] for row in speed.rows}
    return {
        "memory_parts": per_device(memory, memory_columns),
        "speed_parts": _speed_parts(speed),
        "sampled": any(row.values["sampling_interval_seconds"] is not None for row in memory.rows),
        "on_gpus": any(row.values["process_vram_bytes"] is not None for row in memory.rows),
        "high_water": any(c.keys[0] == "peak_process_rss_bytes" for c in memory.columns),
        "ratio_kinds": kinds,
        "ceilings": [
            text
            for records in devices
            for text in (*bandwidths(records), *far_below(records), above_one(records))
            if text
        ],
        "has_ceilings": any(row.values["ceiling_tokens_per_second"] is not None for row in speed.rows),
        "has_energy": any(row.values["decode_joules_per_token"] is not None for row in speed.rows),
        "prices": sorted(
            {price for row in speed.rows if isinstance(price := row.values["price_per_device_hour"], float)}
        ),
        "unsteady": list(dict.fromkeys(text for records in devices for text in condition_warnings(records))),
    }


def _speed_parts(speed: Table) -> list[DevicePart]:
    """Each table with what it leaves out and why."""
    rows = {
        device: [r for r in speed.rows if r.values["device"] == device]
        for device in {str(r.values["device"]) for r in speed.rows}
    }
    parts = per_device(speed, speed_columns)
    return [
        part._replace(
            table=Markdown(
                part.table + "".join(f"\n{markdown(text)}\n" for text in absences(rows[part.device]))
            )
        )
        for part in parts
    ]
