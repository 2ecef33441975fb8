"""The base of every value that is stored: recipes, manifests, records."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """A value that is never changed and has no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
