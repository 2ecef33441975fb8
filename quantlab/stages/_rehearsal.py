"""Run a method on the first layers of a large model before hours are spent on the whole.

The copy goes through the same stages, in processes of their own: it is prepared, quantized, loaded again and
compared. What fails there, in the library's words, is the cell's outcome. What a small copy cannot tell
(memory, disk, time) is not rehearsed."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from quantlab import methods
from quantlab.errors import CellFailure, FailureKind, QuantlabError
from quantlab.files import write_text
from quantlab.hardware.device import Device
from quantlab.models import first_layers
from quantlab.progress import Progress
from quantlab.recipe import Recipe
from quantlab.records import Failure
from quantlab.scratch import scratch
from quantlab.stages import convert, prepare
from quantlab.stages.isolation import run_isolated
from quantlab.workspace.cell import Cell
from quantlab.workspace.logs import log_path
from quantlab.workspace.prepared import Prepared

LARGEST_SHARE = 0.25
"""Of the model's bytes: a copy that is larger costs more than it can save."""
_WINDOWS, _LENGTH = 8, 256
"""So many tokens that most experts of a mixture see some: starved ones take other ways in the libraries."""
_TELLING: tuple[FailureKind, ...] = ("unsupported", "broken_checkpoint", "crashed")
"""Failures of a copy that the whole model would have as well."""


class Rehearsal(NamedTuple):
    """What came of it, where it did not fail."""

    seconds: float | None
    """None where there was none."""
    notes: tuple[str, ...] = ()
    """Why there was none, where one was due."""


def rehearse_cell(cell: Cell, device: Device, progress: Progress) -> Rehearsal:
    """Quantize the first layers with the cell's method and settings. Raises CellFailure with the library's
    reason where that fails."""
    method = methods.load(cell.variant.method)
    due = method.changes_weights and method.starts_from == "source" and not cell.variant.external
    if not due:
        return Rehearsal(None)

    def run(root: Path) -> Failure | None:
        copy = Cell(root, cell.model, cell.variant.slug)
        try:
            return run_isolated(copy, "quantize", device.device, quiet=True).failure
        finally:
            _keep_log(log_path(copy, "quantize"), log_path(cell, "rehearsal"))

    return _rehearse(cell.prepared, cell.recipe, cell.variant.slug, run, progress)


def rehearse_conversion(root: Path, model: str, recipe: Recipe, log: Path, progress: Progress) -> None:
    """Convert the first layers to GGUF. Raises CellFailure with llama.cpp's reason where that fails."""

    def run(copy: Path) -> Failure | None:
        return convert.run(copy, model, log, progress).failure

    _rehearse(Prepared(root, model), recipe, "conversion to GGUF", run, progress)


def _rehearse(
    prepared: Prepared,
    recipe: Recipe,
    what: str,
    run: Callable[[Path], Failure | None],
    progress: Progress,
) -> Rehearsal:
    limit = recipe.rehearsal_above_parameters
    source = prepared.source()
    if limit is None or source.parameters <= limit:
        return Rehearsal(None)
    began = time.monotonic()
    try:
        layers, share = _layers(prepared)
        of_all = f"{layers} of {first_layers.layers_of(prepared.weights)} layers"
        progress.say(
            f"{what}: rehearsing on the first {of_all} ({share:.0%} of its bytes, and about as much of the"
            " run's time); rehearsal_above_parameters: null in the recipe leaves it out"
        )
        with _workspace(prepared, recipe, layers, progress) as root:
            failure = run(root)
    except (QuantlabError, CellFailure) as error:  # of making the copy: it says nothing of the method
        note = f"There was no rehearsal on the first layers: {error}."
        progress.say(note)
        return Rehearsal(None, (note,))
    if failure and failure.kind in _TELLING:
        raise CellFailure(failure.kind, f"on the first {of_all} alone: {failure.reason}")
    return Rehearsal(time.monotonic() - began)


def _layers(prepared: Prepared) -> tuple[int, float]:
    """How many layers the copy needs, and its share of the model's bytes. Raises QuantlabError where a copy
    is not worth it."""
    layers = first_layers.layers_needed(prepared.weights, prepared.source().trust_remote_code)
    count = first_layers.layers_of(prepared.weights)
    whole = first_layers.first_layers_bytes(prepared.weights, count)
    share = first_layers.first_layers_bytes(prepared.weights, layers) / whole
    if share > LARGEST_SHARE:
        raise QuantlabError(
            f"every kind of layer is only in the first {layers} of {count}, {share:.0%} of the model's bytes"
        )
    return layers, share


@contextmanager
def _workspace(prepared: Prepared, recipe: Recipe, layers: int, progress: Progress) -> Iterator[Path]:
    """A workspace with the copy, prepared; it lives in the block."""
    with scratch(prepared.root) as root:
        first_layers.write_first_layers(prepared.weights, root / "source", layers)
        write_text(root / "recipes" / f"{prepared.model}.yaml", yaml.safe_dump(_recipe_of(recipe, root)))
        prepare.run(root, prepared.model, progress)
        yield root


def _recipe_of(recipe: Recipe, root: Path) -> dict[str, Any]:
    """The variants as they are, on a short embedded text."""
    text = {"text": "embedded", "windows": _WINDOWS, "length": _LENGTH}
    return {
        "model": recipe.model,
        "source": {"path": str(root / "source"), "trust_remote_code": recipe.source.trust_remote_code},
        "seed": recipe.seed,
        "calibration": text,
        "evaluation": text,
        "variants": recipe.variants,
        "rehearsal_above_parameters": None,
    }


def _keep_log(made: Path, kept: Path) -> None:
    """The copy's workspace goes; what its library said stays."""
    if made.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(made, kept)
