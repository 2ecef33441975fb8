"""List the stages: name, record, file, version, and the part of a recipe that decides the result.

A stage's name is its command's (`quantlab diverge`), its module's in `quantlab/stages` and its name in
dvc.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from quantlab.records.base import Record
from quantlab.records.diverge import DivergenceRecord
from quantlab.records.evaluate import TaskRecord
from quantlab.records.measure import MeasureRecord
from quantlab.records.quantize import QuantizeRecord
from quantlab.records.sensitivity import SensitivityRecord

StageName = Literal["quantize", "measure", "diverge", "evaluate", "sensitivity"]
VARIANT = "variants.${item.variant}"


class Stage(NamedTuple):
    """A stage that leaves a record of a cell."""

    name: StageName
    record: type[Record]
    file: str
    """In `reports/<model>/data/<variant>/`."""
    version: int
    """Raised when the stage's numbers get another meaning."""
    tracked: tuple[str, ...] | None
    """Keys of the recipe that decide the result, as dvc.yaml writes them; None for a stage that DVC does not
    run."""
    merged: bool = True
    """Whether another machine's records of it come in through `quantlab merge`."""


_TABLE = (
    Stage("quantize", QuantizeRecord, "quantize.json", 2, ("seed", VARIANT), merged=False),
    Stage("measure", MeasureRecord, "measure.json", 4, ("engine", "measure")),
    Stage("diverge", DivergenceRecord, "divergence.json", 5, ("engine",)),
    Stage("evaluate", TaskRecord, "tasks.json", 4, ("seed", "engine", "tasks", "comparison")),
    Stage("sensitivity", SensitivityRecord, "sensitivity.json", 2, None, merged=False),
)
STAGES: Mapping[StageName, Stage] = {stage.name: stage for stage in _TABLE}
BY_DVC: tuple[Stage, ...] = tuple(stage for stage in _TABLE if stage.tracked is not None)
"""Those that DVC runs for each cell, in its order."""


def stage_of(record: Record) -> Stage:
    """The stage that leaves records of this type."""
    return next(stage for stage in _TABLE if type(record) is stage.record)
