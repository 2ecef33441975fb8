"""Find the device that a workspace's stages run on, and check whether something fits into it."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from quantlab.errors import CellFailure, QuantlabError
from quantlab.hardware.device import Device, find
from quantlab.parsing import read_object
from quantlab.recipe import explain


def target_device(root: Path, asked: str | None) -> Device:
    """The device asked for, else the one that `probe` chose for the workspace, else the best there is."""
    chosen = root / "env" / "device.json"
    if asked is None and chosen.exists():
        asked = _chosen(chosen)
    return find(asked or "auto")


def _chosen(path: Path) -> str:
    """The device that env/device.json names. Raises QuantlabError where it is not what `probe` writes."""
    try:
        return Device.model_validate(read_object(path)).device
    except ValidationError as error:
        raise QuantlabError(
            f"{path} is not what `quantlab probe` writes ({explain(error)}): run it again"
        ) from None


def require_memory(device: Device, needed_bytes: int, what: str) -> None:
    """Raise CellFailure where the device's memory is smaller than what is certainly needed."""
    if needed_bytes > device.memory_bytes and not device.places.disk:
        raise CellFailure(
            "does_not_fit",
            f"{what} needs at least {needed_bytes / 2**30:.1f} GiB, {device.name} has"
            f" {device.memory_bytes / 2**30:.1f} GiB",
        )


def fits_in_float32(parameters: int, device: Device, more_bytes: int = 0) -> bool:
    """Whether a model fits into the device's memory in float32, with three tenths for all else and so many
    bytes more."""
    return parameters * 4 * 1.3 + more_bytes < device.memory_bytes
