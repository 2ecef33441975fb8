"""Define the records: one immutable, versioned JSON result per stage and cell, one file per stage.

A quantity that was not measured is None, and `failure` (or a note) says why; there are no stand-in numbers.
"""

from quantlab.records.base import SCHEMA_VERSION, Estimate, Failure, Record
from quantlab.records.diverge import DivergenceRecord, RoundToNearest, RoutingChanges, SureTokens
from quantlab.records.evaluate import Look, TaskRecord, TaskResult
from quantlab.records.expert_tokens import ExpertTokens
from quantlab.records.measure import (
    BaselineRun,
    MeasureRecord,
    MemoryRecord,
    Pairing,
    Roofline,
    SpeedPoint,
    SpeedRecord,
)
from quantlab.records.quantize import QuantizeRecord
from quantlab.records.sensitivity import PartLoss, SensitivityRecord
from quantlab.records.stages import BY_DVC, STAGES, VARIANT, Stage, StageName, stage_of
from quantlab.records.unquantized import PROMISED, Unquantized, WeightKind

__all__ = [
    "BY_DVC",
    "PROMISED",
    "SCHEMA_VERSION",
    "STAGES",
    "VARIANT",
    "BaselineRun",
    "DivergenceRecord",
    "Estimate",
    "ExpertTokens",
    "Failure",
    "Look",
    "MeasureRecord",
    "MemoryRecord",
    "Pairing",
    "PartLoss",
    "QuantizeRecord",
    "Record",
    "Roofline",
    "RoundToNearest",
    "RoutingChanges",
    "SensitivityRecord",
    "SpeedPoint",
    "SpeedRecord",
    "Stage",
    "StageName",
    "SureTokens",
    "TaskRecord",
    "TaskResult",
    "Unquantized",
    "WeightKind",
    "stage_of",
]
