"""Keep the model as it is. The checkpoint is a manifest that points at the prepared source, not a copy."""

from __future__ import annotations

from typing import Any

from quantlab.architecture.parameters import Matrix, ParameterCount
from quantlab.architecture.weight_bytes import WeightBytes, plain_bytes
from quantlab.methods._contract import InMemory, Job, Method, Serving


class Baseline(Method):
    """The unquantized model."""

    name = "baseline"
    summary = "the unquantized model, pinned to a revision"
    bits = (16,)
    requires = ("torch", "transformers")
    changes_weights = False
    colour = "#4d4d4d"

    def quantize(self, job: Job) -> InMemory:
        """Write nothing: the stage makes the manifest point at the source."""
        return InMemory(None, 0)

    def why_left(self, count: ParameterCount, matrix: Matrix) -> str | None:
        """Everything stays."""
        return "the unquantized model"

    def weight_bytes(self, count: ParameterCount, bits: int, settings: Any) -> WeightBytes:
        """Bytes of the model in 16 bits."""
        release = (
            "A release that is stored in fewer bits becomes this large when it is dequantized to 16 bits."
        )
        return plain_bytes(count, (release,) if count.experts else ())

    def serving(self, bits: int, source: str) -> Serving:
        """As it is."""
        return Serving()

    def served_path(self, checkpoint: str, source: str) -> str:
        """The source itself: the checkpoint has no weights of its own."""
        return source


METHOD = Baseline()
