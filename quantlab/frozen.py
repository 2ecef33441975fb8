"""Define the base of every stored value: recipes, manifests, records."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """A value that is never changed, has no unknown keys, and no number that is none (NaN, infinity)."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)
