"""Find a cell's files in a workspace, and prepare what every stage of a cell needs."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from quantlab.names import Variant, check_model_name, parse_variant
from quantlab.recipe import Recipe, read_recipe
from quantlab.workspace.checkpoint import Checkpoint, read_checkpoint
from quantlab.workspace.prepared import Prepared


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
        """The cell's checkpoint. Raises CellFailure where the quantization failed, QuantlabError where it
        never ran."""
        checkpoint = read_checkpoint(self.checkpoint_folder)
        checkpoint.require_weights()
        return checkpoint

    @property
    def data_folder(self) -> Path:
        """Where the cell's records lie."""
        return self.root / "reports" / self.model / "data" / self.variant.slug
