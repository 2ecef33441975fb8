"""Choose the 16-bit variant that is timed beside a variant, and check whether both fit at once."""

from __future__ import annotations

from typing import NamedTuple

from quantlab import engines
from quantlab.errors import CellFailure, QuantlabError
from quantlab.hardware.device import Device
from quantlab.hardware.memory import available_bytes, free_vram_bytes
from quantlab.records.measured import SampledMemory
from quantlab.workspace.cell import Cell


class Beside(NamedTuple):
    """The 16-bit variant's cell, or the reason why none is timed beside this one."""

    cell: Cell | None
    reason: str | None = None


def sixteen_bit(cell: Cell, engine: str) -> Beside:
    """No reason where the cell is the 16-bit variant itself."""
    slug = engines.sixteen_bit(engine)
    if slug == cell.variant.slug:
        return Beside(None)
    if slug is None:
        return Beside(None, f"engine {engine} has no 16-bit variant here")
    other = Cell(cell.root, cell.model, slug)
    try:
        other.checkpoint()
    except (CellFailure, QuantlabError) as error:
        return Beside(None, f"{slug} cannot run beside it: {error}")
    return Beside(other)


def fit_together(other: Cell, seen: SampledMemory | None, weights_bytes: int | None, device: Device) -> bool:
    """Whether the 16-bit variant fits into the memory that is free while the variant is loaded.

    It is taken to need its weights, what the variant held beyond its own, and a tenth more. Where nothing was
    seen, or the engine does not count its weights, it is not tried."""
    if seen is None or weights_bytes is None:
        return False
    gpu = bool(device.places.gpus)
    peak = seen.peak_vram_bytes if gpu else (seen.peak.tree_pss_bytes or seen.peak.tree_rss_bytes)
    if peak is None:
        used = [use.used_bytes for use in seen.peak.gpus]
        if not used or None in used:
            return False
        peak = sum(size for size in used if size is not None)
    needed = 1.1 * (other.checkpoint().disk_bytes + max(peak - weights_bytes, 0))
    return needed <= _free_bytes(device)


def _free_bytes(device: Device) -> int:
    if device.places.gpus:
        return sum(free_vram_bytes(device.places.gpus).values())
    return available_bytes()
