"""A cell in a workspace: where its files lie, and what every stage of a cell does before it starts."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from pydantic import ValidationError

from quantlab.checkpoint import Checkpoint, read_checkpoint
from quantlab.device import Device, find
from quantlab.errors import CellFailure, QuantlabError
from quantlab.names import Variant, check_model_name, parse_variant
from quantlab.parsing import read_object
from quantlab.prepared import Prepared
from quantlab.recipe import Recipe, explain, read_recipe


class Cell:
    """One model and one variant in a workspace."""

    def __init__(self, root: Path, model: str, variant: str) -> None:
        self.root, self.model = root, check_model_name(model)
        self.variant: Variant = parse_variant(variant)
        self.prepared = Prepared(root, model)

    @cached_property
    def recipe(self) -> Recipe:
        """The model's recipe. Raises QuantlabError."""
        return read_recipe(self.root / "recipes" / f"{self.model}.yaml")

    @property
    def checkpoint_folder(self) -> Path:
        return self.root / "checkpoints" / self.model / self.variant.slug

    def checkpoint(self) -> Checkpoint:
        """The cell's checkpoint. Raises CellFailure where the quantization failed, QuantlabError where it never ran."""
        found = read_checkpoint(self.checkpoint_folder)
        found.require_weights()
        return found

    @property
    def data_folder(self) -> Path:
        """Where the cell's records lie."""
        return self.root / "reports" / self.model / "data" / self.variant.slug


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
        raise QuantlabError(f"{path} is not what `quantlab probe` writes ({explain(error)}): run it again") from None


def require_memory(device: Device, needed_bytes: int, what: str) -> None:
    """Raise CellFailure where the device's memory is smaller than what is certainly needed."""
    if needed_bytes > device.memory_bytes and not device.places.disk:
        raise CellFailure(
            "does_not_fit", f"{what} needs at least {needed_bytes / 2**30:.1f} GiB, {device.name} has {device.memory_bytes / 2**30:.1f} GiB"
        )


def fits_in_float32(parameters: int, device: Device, more_bytes: int = 0) -> bool:
    """Whether a model fits into the device's memory in float32, with three tenths for all else and so many bytes more."""
    return parameters * 4 * 1.3 + more_bytes < device.memory_bytes
