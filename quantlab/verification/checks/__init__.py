"""Check one thing of a machine: one file per check, named as the check.

A file holds one `CHECK` (`quantlab/verification/contract.py` says what each attribute means). Another package
brings one by an entry point of the group `quantlab.verification.checks`."""

from __future__ import annotations

from quantlab.registry import Registry
from quantlab.verification.contract import Check

__all__ = ["load", "names"]

_REGISTRY = Registry(__name__, __path__, "check", Check, "CHECK")


def names() -> tuple[str, ...]:
    """Every check's name."""
    return _REGISTRY.names()


def load(name: str) -> Check:
    """The check of that name. Raises QuantlabError for an unknown name."""
    return _REGISTRY.load(name)
