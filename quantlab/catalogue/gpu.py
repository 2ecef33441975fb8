"""GPUs: memory, bandwidth, peak rates and power, each with its source, and the names that people give them."""

from __future__ import annotations

from typing import NamedTuple

from quantlab.records import Frozen


class GpuSpec(Frozen):
    """One kind of GPU. Rates are dense (no 2:4 sparsity)."""

    name: str
    memory_gb: float
    """As marketed; plan with usable_gib."""
    usable_gib: float
    """All memory that a process can see, in units of 2^30 bytes."""
    usable_estimated: bool = False
    """True where no measured figure is known: see the source."""
    bandwidth_gb_per_second: float
    tflops: dict[str, float] = {}
    """Dense 10^12 operations per second by type: bf16, fp8, int8, fp4; a type that is absent is not known or not there."""
    power_watts: float | None = None
    aliases: tuple[str, ...] = ()
    source: dict[str, str] = {}
    note: str = ""

    @property
    def usable_bytes(self) -> int:
        return int(self.usable_gib * 2**30)


class GpuSet(NamedTuple):
    """Some GPUs of one kind."""

    gpu: GpuSpec
    count: int


def gpus() -> dict[str, GpuSpec]:
    """Every GPU by its name, the user's own included. Raises QuantlabError for a file that is no list of GPUs."""
    raise NotImplementedError


def find_gpu(name: str) -> GpuSpec:
    """By name or alias, whatever the case. Raises QuantlabError with the nearest names."""
    raise NotImplementedError


def parse_gpus(text: str) -> GpuSet:
    """`h100:2`, `2xh100` or `h100`. Raises QuantlabError for an unknown GPU or a count below 1."""
    raise NotImplementedError
