"""Share what methods have in common that only read other people's checkpoints."""

from __future__ import annotations

from quantlab.errors import CellFailure
from quantlab.methods._contract import InMemory, Job, Method

UNPACKED = (
    "Its layers were unpacked to 16 bits when they were loaded: speed and runtime memory are those of an"
    " unquantized model, not of the kernels that serve this format on a GPU."
)
ACTIVATIONS_IN_16_BITS = (
    "Its activations stayed in 16 bits here; kernels on a GPU round them to {to}, which costs more quality."
)


CACHE_IN_16_BITS = "Its quantized cache of keys and values was not used: it stayed in 16 bits."


class ReadOnly(Method):
    """A format that quantlab measures and does not write."""

    bits = ()
    stores_tokenizer = False

    def quantize(self, job: Job) -> InMemory:
        """Refuse."""
        raise CellFailure("not_offered", f"{self.name} only reads checkpoints that others made")
