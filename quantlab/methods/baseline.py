"""baseline: the model as it is. Its checkpoint is a manifest that points at the prepared source, not a copy."""

from __future__ import annotations

from quantlab.frozen import Frozen
from quantlab.methods import InMemory, Job

SUMMARY = "the unquantized model, pinned to a revision"
BITS = (16,)
FORMAT = "safetensors"
FROM = "source"
EXTRA = None
REQUIRES = ("torch", "transformers")
ENV: dict[str, str] = {}


class Settings(Frozen):
    """Nothing can be set."""


def quantize(job: Job) -> InMemory:
    """Writes nothing: the stage makes the manifest point at the source."""
    return InMemory(None, 0)
