"""Run checkpoints: one file per engine, named as the engine.

A file holds one `ENGINE`, an object of a class that extends `Engine` (`_contract.py` says what each attribute
means). Another package brings one by an entry point of the group `quantlab.engines`. An engine runs a
checkpoint and knows nothing of what is measured on it; nobody outside this folder knows an engine's name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantlab.engines._contract import (
    ANYTHING,
    AllocatorPeaks,
    Chosen,
    Demand,
    Engine,
    EngineMemory,
    OpenCheckpoint,
    Resident,
    Routed,
    Served,
    ServeTarget,
    WorkerPlace,
    with_float32_softmax,
)
from quantlab.errors import QuantlabError
from quantlab.names import BASELINE
from quantlab.registry import Registry

if TYPE_CHECKING:
    from quantlab.hardware.device import Device
    from quantlab.workspace.checkpoint import Checkpoint

__all__ = [
    "ANYTHING",
    "AllocatorPeaks",
    "Chosen",
    "Demand",
    "Engine",
    "EngineMemory",
    "OpenCheckpoint",
    "Resident",
    "Routed",
    "ServeTarget",
    "Served",
    "WorkerPlace",
    "dense_form",
    "engine_for",
    "engine_or_usual",
    "for_releases",
    "load",
    "names",
    "runs_dense",
    "sixteen_bit",
    "with_float32_softmax",
    "with_sixteen_bit",
]

_REGISTRY = Registry(__name__, __path__, "engine", Engine, "ENGINE")  # type: ignore[type-abstract]


def names() -> tuple[str, ...]:
    """Every engine's name."""
    return _REGISTRY.names()


def load(name: str) -> Engine:
    """The engine of that name. Raises QuantlabError for an unknown name."""
    return _REGISTRY.load(name)


def engine_for(checkpoint_format: str, wanted: str | None = None) -> str:
    """Name of the engine that runs checkpoints of this format: the default, or another one that is asked for
    by name.

    Raises QuantlabError for an engine that there is not, or that does not read the format.
    """
    if wanted is None:
        return next(name for name in names() if checkpoint_format in load(name).runs_by_default)
    if checkpoint_format not in load(wanted).formats:
        able = ", ".join(name for name in names() if checkpoint_format in load(name).formats)
        raise QuantlabError(f"the engine {wanted} reads no {checkpoint_format} checkpoints: use {able}")
    return wanted


def engine_or_usual(checkpoint_format: str, wanted: str | None) -> str:
    """The engine that a recipe names where it reads the format, else the format's usual one. Raises
    QuantlabError."""
    return engine_for(
        checkpoint_format, wanted if wanted and checkpoint_format in load(wanted).formats else None
    )


def for_releases() -> Engine:
    """The engine whose server takes a release as it is stored."""
    return next(engine for engine in map(load, names()) if engine.serves_releases)


def runs_dense(checkpoint: Checkpoint, device: Device) -> bool:
    """Whether quality is measured on layers dequantized once: on a CPU, where that was found to give the
    same."""
    return device.device == "cpu" and checkpoint.manifest.dense_verified


def dense_form(checkpoint: Checkpoint) -> str | None:
    """In words, the quicker form in which a CPU measures a checkpoint's quality; None where there is none."""
    return load(engine_for(checkpoint.manifest.format)).dense_form(checkpoint)


def sixteen_bit(engine: str | None) -> str | None:
    """The 16-bit variant of an engine; None for an engine that is not here."""
    return load(engine).sixteen_bit if engine in names() else None


def with_sixteen_bit() -> tuple[tuple[str, str], ...]:
    """Every engine with its 16-bit variant, those of the unquantized model itself first."""
    pairs = ((name, load(name).sixteen_bit) for name in names())
    return tuple(sorted(pairs, key=lambda each: (each[1] != BASELINE, each[1], each[0])))
