"""Define what `quantlab doctor --verify` stores of a machine: the outcome of every check, with its
figures."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator, model_validator

from quantlab.frozen import Frozen

VERIFICATION_VERSION = 1
UNITS = (
    *("_bytes", "_bytes_per_second", "_seconds", "_nats", "_tokens", "_tokens_per_second", "_ratio"),
    *("_bits_per_weight", "_watts", "_joules", "_mhz", "_celsius", "_share", "_cores", "_layers"),
)
"""How the name of a figure ends."""
Status = Literal["passed", "failed", "not_applicable", "not_run"]


class Outcome(Frozen):
    """What a check found."""

    status: Status
    reason: str = ""
    """Why it did not pass; empty where it did."""
    figures: dict[str, float] = {}
    """What was measured, each name with its unit at the end."""
    facts: dict[str, str] = {}
    """What was seen that is no number: a kernel's name, a driver's version."""

    @field_validator("figures")
    @classmethod
    def _with_units(cls, value: dict[str, float]) -> dict[str, float]:
        bare = [name for name in value if not name.endswith(UNITS)]
        if bare:
            raise ValueError(f"the names of figures end with their unit, and these do not: {', '.join(bare)}")
        return value

    @model_validator(mode="after")
    def _explained(self) -> Outcome:
        if (self.status == "passed") == bool(self.reason):
            raise ValueError("what passed has no reason, and everything else has one")
        return self


class CheckRecord(Frozen):
    """One check of one subject, as it ended."""

    check: str
    """Name of a file in quantlab/verification/checks."""
    subject: str
    """What of several it was done on, such as `wide/gptq-4`; empty where there is but one."""
    key: str
    """Hash of the code, the libraries and the device that it was done with."""
    outcome: Outcome
    seconds: float
    finished: str
    """When it ended: UTC, ISO 8601."""

    @property
    def name(self) -> str:
        """As a person names it."""
        return f"{self.check} {self.subject}".rstrip()


class VerifiedGpu(Frozen):
    """A GPU that the device names."""

    name: str
    memory_bytes: int
    driver: str


class Verification(Frozen):
    """What a machine has proven of itself."""

    schema_version: int = VERIFICATION_VERSION
    device: str
    """In words, as records have it."""
    asked: str
    """`cpu`, `cuda:0` or several places."""
    cpu: str
    cores: int
    memory_gib: int
    gpus: tuple[VerifiedGpu, ...] = ()
    system: str
    python: str
    quantlab: str
    code_sha256: str
    """Of quantlab's own files."""
    versions: dict[str, str] = {}
    models: dict[str, str] = {}
    """The random models that were made, in words."""
    results: tuple[CheckRecord, ...] = ()

    def failed(self) -> tuple[CheckRecord, ...]:
        """The checks that did not pass."""
        return tuple(result for result in self.results if result.outcome.status == "failed")
