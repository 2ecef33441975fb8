"""The engines: one file each, one shape. An engine runs a checkpoint and knows nothing of what is measured on it.

An engine is a module with `SUMMARY`, `FORMATS` (what it runs), `EXTRA`, `REQUIRES`, `imports(checkpoint)` and
`open_checkpoint(checkpoint, device, dense=False, float32=False)`; one that cannot live in quantlab's own environment says in `INSTALL` how
to bring it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from quantlab import registry
from quantlab.analysis.roofline import WeightReads
from quantlab.errors import QuantlabError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from quantlab.checkpoint import Checkpoint


class EngineMemory(NamedTuple):
    """What the engine itself knows of its memory."""

    weights_bytes: int
    kv_cache_bytes: int
    state_bytes: int = 0
    """Recurrent states, which do not grow with the context."""
    by_device: Mapping[str, int] = {}
    """Weights by place, where the model lies in several."""


class Engine(Protocol):
    """A checkpoint, loaded and ready to run on one device."""

    name: str
    device: str
    """The device in words."""
    dtype: str
    """The dtype that the model computes in."""
    scored_in: str
    """What its language model takes log-likelihoods in, in words."""
    kernel: str
    """What really multiplies the weights: it decides speed."""
    threads: int | None
    dense: bool
    """Whether weight-only quantized layers run as dense layers that were dequantized once."""
    cache_dtype: str
    """What keys and values are stored in."""
    context_tokens: int | None
    """The longest context that the model was made for; None where it does not say."""

    def logits(self, token_ids: NDArray[np.int64], first: int = 0) -> NDArray[np.float32]:
        """Teacher-forced next-token logits of one window from row `first` on: (length,) token ids to (length - first, vocabulary)."""
        ...

    def language_model(self, batch_size: int) -> Any:
        """An lm-eval `LM` over this engine."""
        ...

    def prefill(self, token_ids: NDArray[np.int64]) -> None:
        """Run (batch, length) token ids from an empty cache; returns when the device has finished."""
        ...

    def decode(self, tokens: int) -> None:
        """Generate greedily, `tokens` steps of one token per sequence, after a prefill; returns when finished."""
        ...

    def memory(self) -> EngineMemory: ...

    def weight_reads(self) -> WeightReads:
        """What a decode must read of the weights."""
        ...

    def close(self) -> None: ...


class EngineModule(Protocol):
    """The shape of a module in this folder."""

    SUMMARY: str
    FORMATS: tuple[str, ...]
    EXTRA: str | None
    REQUIRES: tuple[str, ...]

    def imports(self, checkpoint: Checkpoint) -> tuple[str, ...]:
        """Modules that running the checkpoint brings in: their memory is the empty engine's, not the model's."""
        ...

    def open_checkpoint(self, checkpoint: Checkpoint, device: str, dense: bool = False, float32: bool = False) -> Engine:
        """Load the checkpoint. `float32` asks for arithmetic in float32, where engine and format can do it.

        Raises CellFailure where it cannot run here.
        """
        ...


def with_float32_softmax(dtype: str) -> str:
    """In words: a model that computes in this dtype, its log-probabilities taken in float32."""
    return dtype if dtype.startswith("float32") else f"{dtype}, log-probabilities in float32"


def names() -> tuple[str, ...]:
    """Every engine's name."""
    return registry.names(__path__)


def load(name: str) -> EngineModule:
    """The engine's module. Raises QuantlabError for an unknown name."""
    return cast(EngineModule, registry.load(__name__, __path__, "engine", name))


DEFAULTS = {"safetensors": "transformers", "gguf": "llama_cpp"}


def engine_for(checkpoint_format: str, wanted: str | None = None) -> str:
    """Name of the engine that runs checkpoints of this format: the default, or another one that is asked for by name.

    Raises QuantlabError for an engine that there is not, or that does not read the format.
    """
    if wanted is None:
        return DEFAULTS[checkpoint_format]
    if checkpoint_format not in load(wanted).FORMATS:
        able = ", ".join(name for name in names() if checkpoint_format in load(name).FORMATS)
        raise QuantlabError(f"the engine {wanted} reads no {checkpoint_format} checkpoints: use {able}")
    return wanted


def engine_or_usual(checkpoint_format: str, wanted: str | None) -> str:
    """The engine that a recipe names where it reads the format, else the format's usual one. Raises QuantlabError."""
    return engine_for(checkpoint_format, wanted if wanted and checkpoint_format in load(wanted).FORMATS else None)
