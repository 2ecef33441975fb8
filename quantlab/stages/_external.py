"""Find somebody else's checkpoint, and say what a reader must know of it."""

from __future__ import annotations

import os
from pathlib import Path

from quantlab import methods
from quantlab.errors import QuantlabError
from quantlab.hardware.device import Device
from quantlab.methods import _foreign as foreign
from quantlab.methods._differences import differences
from quantlab.models.text import passages_of
from quantlab.workspace.cell import Cell


def notes_of(cell: Cell, device: Device) -> tuple[str, ...]:
    """Say how somebody else's checkpoint is read, and what it changed beside the weights. Raises CellFailure
    where it is of another model."""
    path = path_of(cell)
    same_words = _require_same_words(cell)
    changed = differences(path, cell.prepared.weights)
    return (*foreign.reading_notes(path, device.device), *same_words, *changed)


def _require_same_words(cell: Cell) -> tuple[str, ...]:
    """Notes on a tokenizer that could not be compared. Raises CellFailure where somebody else's checkpoint
    has another."""
    from quantlab.models.loading import load_tokenizer

    trust = cell.prepared.source().trust_remote_code
    tokenizer = load_tokenizer(cell.prepared.origin, trust)
    passages = foreign.sample(passages_of(cell.recipe.evaluation.text, "evaluation", cell.root)[0])
    return foreign.require_same_tokenizer(path_of(cell), tokenizer, passages, trust)


def path_of(cell: Cell) -> Path:
    # a link keeps its name: the hub's cache links files to names that say nothing
    path = cell.root.absolute() / methods.settings_in(cell.recipe, cell.variant).checkpoint
    path = Path(os.path.normpath(path))
    if foreign.identify(path, cell.prepared.source().trust_remote_code) != cell.variant:
        raise QuantlabError(
            f"{path} has changed since {cell.variant.slug} was named after it: run it again with"
            f" --checkpoint {path}"
        )
    return path
