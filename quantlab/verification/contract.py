"""Define what a check is: a function from a context to an outcome, and when it is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from quantlab.hardware.device import Device
from quantlab.records.verification import Outcome


class Context(NamedTuple):
    """What a check is given."""

    device: Device
    root: Path
    """The workspace of the random models, which checks share and may leave anything in."""
    seconds: float
    """How long it may take before it is ended."""
    subject: str = ""
    """Which of the check's subjects this is."""


class Subject(NamedTuple):
    """One of the things that a check is done on."""

    name: str
    rank: int
    """The most valuable is done first: the lowest number over all checks."""
    why_not: str = ""
    """Why it does not apply on this machine, where that is known without trying."""


class Check(NamedTuple):
    """A way of proving something. One file of `quantlab/verification/checks` holds one, as `CHECK`; another
    package brings one by an entry point of the group `quantlab.verification.checks`."""

    name: str
    """The file's or the entry point's name."""
    proves: str
    """One line for the page."""
    run: Callable[[Context], Outcome]
    """In a process of its own; it fails with the reason of a CellFailure or QuantlabError that it raises."""
    subjects: Callable[[Device], Sequence[Subject]]
    """What it is done on, on this device; imports nothing heavy."""
    usual_seconds: float = 30
    """It is not begun where less than that is left."""
    limit_seconds: float = 600
    """It is ended after that."""


def once(rank: int) -> Callable[[Device], Sequence[Subject]]:
    """For a check that is done once: its subject has no name."""
    return lambda _device: (Subject("", rank),)


def no_gpu(device: Device) -> str:
    """Why what needs a GPU does not apply to the device; empty where it does."""
    return "" if device.places.gpus else "no GPU"


def lacking(absent: Sequence[str], command: str | None = None) -> str:
    """Why what needs these distributions, which are not installed, does not apply here; empty where there are
    none."""
    return f"not installed: {', '.join(absent)}" + (f" (`{command}`)" if command else "") if absent else ""


def judged(
    complaints: Sequence[str], figures: Mapping[str, float | None], facts: Mapping[str, str] | None = None
) -> Outcome:
    """Passed without complaints, else failed with all of them; figures that are None are left out."""
    return Outcome(
        status="failed" if complaints else "passed",
        reason="; ".join(complaints),
        figures={name: value for name, value in figures.items() if value is not None},
        facts=dict(facts or {}),
    )


def not_applicable(reason: str) -> Outcome:
    """The outcome of what cannot be checked on this device."""
    return Outcome(status="not_applicable", reason=reason)
