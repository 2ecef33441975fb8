"""Turn the end of a check's process into an outcome that names no host and no folder of this machine."""

from __future__ import annotations

import platform
import re
from pathlib import Path

from pydantic import ValidationError

from quantlab.environments.deaths import ending
from quantlab.errors import TRANSIENT
from quantlab.outside import ended_from_outside
from quantlab.records.verification import Outcome
from quantlab.verification.contract import not_applicable

_PATH = re.compile(r"(?<![\w.:/])(?:[A-Za-z]:)?(?:/[\w.+@~-]+)+/(?=[\w.+@~-])")
_NOT_HERE = ("not_installed", "does_not_fit")
"""Kinds of failure that say something of this machine and nothing of the code."""


def outcome_of(kind: str, reason: str) -> Outcome:
    """The outcome of a check that raised."""
    if kind in _NOT_HERE:
        return not_applicable(reason)
    if kind in TRANSIENT:
        return Outcome(status="not_run", reason=reason)
    return Outcome(status="failed", reason=f"{kind.replace('_', ' ')}: {reason}")


def ending_of(code: int, said: Path, log: Path, kills_before: int | None) -> Outcome:
    """What a check's process left, or how it died; `kills_before` is `memory_kills()` when it began."""
    try:
        return without_places(Outcome.model_validate_json(said.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValidationError):
        if outside := ended_from_outside(code, kills_before, log.parent, "its process"):
            return outcome_of(outside.kind, outside.reason)
        how = ending(code)
        return Outcome(status="failed", reason=f"its process {how} and left no outcome; see logs/{log.name}")


def without_places(outcome: Outcome) -> Outcome:
    """The same with folders taken out of its words, and the machine's name."""
    facts = {name: cleaned(text) for name, text in outcome.facts.items()}
    return outcome.model_copy(update={"reason": cleaned(outcome.reason), "facts": facts})


def cleaned(text: str) -> str:
    """Without absolute folders (a file keeps its own name) and without the host's name."""
    host = platform.node()
    if len(host) > 2:
        text = re.sub(rf"\b{re.escape(host)}\b", "this machine", text)
    return _PATH.sub("", text)
