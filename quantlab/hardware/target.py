"""Find the device that a workspace's stages run on, and check whether something fits into it."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from quantlab.errors import CellFailure, QuantlabError
from quantlab.hardware.device import Device, find
from quantlab.hardware.torch_view import TorchView, torch_view
from quantlab.parsing import read_object
from quantlab.recipe import explain

_OLDEST_DRIVER = {12: 525, 13: 580}
"""By the major version of CUDA, the first branch of NVIDIA's Linux driver that runs it (NVIDIA's CUDA
Compatibility guide, minor version compatibility)."""


def target_device(root: Path, asked: str | None) -> Device:
    """The device asked for, else the one that `probe` chose for the workspace, else the best there is.

    Raises QuantlabError where it is not there or torch cannot use it, which `probe` has tried of its own."""
    chosen = root / "env" / "device.json"
    if asked is None and chosen.exists():
        return find(_chosen(chosen))
    return require_usable(find(asked or "auto"))


def require_usable(device: Device) -> Device:
    """Give the device back after torch opened its GPUs. Raises QuantlabError where torch cannot use one.

    Where torch is not installed nothing is said: what needs it says so itself."""
    numbers = device.places.gpus
    view = torch_view() if numbers else None
    if view is None or not view.installed or max(numbers) < len(view.gpus):
        return device
    raise QuantlabError(
        f"the driver shows {device.name}, but torch cannot use {device.device}: {_why(device, view)}, or use"
        " --device cpu"
    )


def _why(device: Device, view: TorchView) -> str:
    """The reason and what to do."""
    if view.cuda is None and not view.trouble.startswith("it "):
        return "this torch was built without CUDA; install one that was built with it"
    driver = device.used_gpus[0].driver
    oldest = _OLDEST_DRIVER.get(int((view.cuda or "0").split(".")[0]), 0)
    branch = driver.split(".")[0]
    if branch.isdigit() and int(branch) < oldest:
        return (
            f"its CUDA {view.cuda} needs driver {oldest} or newer, this is {driver}; update the driver, or"
            " install a torch for an older CUDA"
        )
    shown = view.trouble or f"it sees {len(view.gpus)} GPUs"
    return f"{shown}; mend what it names (`quantlab doctor` says what is installed)"


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


def require_host_memory(device: Device, needed_bytes: int, what: str) -> None:
    """Raise CellFailure where the machine's memory is smaller than what is certainly needed of it."""
    if needed_bytes > device.memory_gib * 2**30:
        raise CellFailure(
            "does_not_fit",
            f"{what} needs at least {needed_bytes / 2**30:.1f} GiB of the machine's memory, which has"
            f" {device.memory_gib} GiB",
        )


def fits_in_float32(parameters: int, device: Device, more_bytes: int = 0) -> bool:
    """Whether a model fits into the device's memory in float32, with three tenths for all else and so many
    bytes more."""
    return parameters * 4 * 1.3 + more_bytes < device.memory_bytes
