"""Define what every record holds: why a cell has no number, estimates with uncertainty, and where it was
made."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from quantlab.errors import CellFailure, FailureKind
from quantlab.frozen import Frozen
from quantlab.records.bounds import impossible

SCHEMA_VERSION = 1


class Failure(Frozen):
    """Why a cell has no number."""

    kind: FailureKind
    reason: str

    @staticmethod
    def of(error: CellFailure) -> Failure:
        return Failure(kind=error.kind, reason=error.reason)


class Estimate(Frozen):
    """A mean with its uncertainty."""

    value: float
    standard_error: float | None
    """None where the sample is too small for one."""
    n: int
    """How many independent units (windows, items) it was estimated from."""


class Record(Frozen):
    """What every record says of itself."""

    schema_version: int = SCHEMA_VERSION
    stage_version: int | None = None
    """Of the stage that wrote it, raised when its numbers get another meaning."""
    model: str
    variant: str
    checkpoint_sha256: str | None = None
    """Hash of the checkpoint's manifest; None where there is no checkpoint."""
    settings_sha256: str | None = None
    """Of the stage's part of the recipe as it was when the stage began; None where it was not recorded."""
    engine: str | None = None
    device: str | None = None
    """The device in words, such as `AMD EPYC (2 cores)` or `NVIDIA H100 80GB HBM3`."""
    versions: dict[str, str] = {}
    failure: Failure | None = None
    notes: tuple[str, ...] = ()
    """What a reader of the number must know, one sentence each."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if why := impossible(self):
            raise ValueError(why)
        return self
