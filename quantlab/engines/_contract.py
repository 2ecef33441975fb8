"""Define what an engine must provide: facts for planner, stages and report, and the open checkpoint."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from quantlab.architecture.roofline import WeightReads
from quantlab.environments.versions import installed
from quantlab.formats import Format
from quantlab.names import BASELINE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from quantlab.workspace.checkpoint import Checkpoint


class EngineMemory(NamedTuple):
    """What the engine itself knows of its memory."""

    weights_bytes: int | None
    """None where it does not count them; `weights_reason` says why."""
    kv_cache_bytes: int
    state_bytes: int = 0
    """Recurrent states, which do not grow with the context."""
    by_device: Mapping[str, int] = {}
    """Weights by place, where the model lies in several."""
    weights_reason: str | None = None


class AllocatorPeaks(NamedTuple):
    """Peaks that the engine's own allocator counted on a GPU since they were reset; None where it counts
    none."""

    allocated_bytes: int | None = None
    reserved_bytes: int | None = None


class Demand(NamedTuple):
    """What will be asked of an open checkpoint, for an engine that reserves its memory when it opens one."""

    tokens: int | None = None
    """Tokens of the longest sequence, prompt and answer together; None where that is not known before."""
    scored_tokens: int = 0
    """The most tokens whose log-probabilities are asked for in one call; 0 where none are."""
    sequences: int = 1
    """The most sequences at the same time."""


ANYTHING = Demand()
"""Nothing is known of what will be asked: the model's whole context, or as much of it as fits."""


class Resident(NamedTuple):
    """Resident memory of processes that an engine started, in bytes."""

    now: int = 0
    peak: int = 0
    """Since they began."""


class WorkerPlace(NamedTuple):
    """The environment of a process that will hold an engine, and what the device is called in it."""

    environment: dict[str, str]
    device: str


class ServeTarget(NamedTuple):
    """What a server is asked to serve."""

    path: str
    """The checkpoint's folder or file, or a release's name."""
    name: str
    """What clients call the model."""
    context_tokens: int
    gpus: int
    """0 for a CPU."""
    flags: tuple[str, ...] = ()
    """Of the checkpoint's method."""
    not_parallel: str = ""
    """Why the GPUs cannot share its layers, where they cannot: each then gets whole layers."""


class Served(NamedTuple):
    """How a checkpoint is served."""

    command: str | None
    """None where no known server loads it; `notes` say why."""
    modelfile: str | None = None
    """Text of an Ollama Modelfile that lies beside the checkpoint's folder."""
    create: str | None = None
    """The command that makes Ollama's model of it."""
    notes: tuple[str, ...] = ()


class Chosen(NamedTuple):
    """The experts that the routers of a mixture sent tokens to."""

    by_block: Mapping[int, NDArray[np.integer[Any]]] = {}
    """By the block's number, experts (tokens, per token) in any order; none without experts."""
    reason: str | None = None
    """Why they are not known; None where they are, and for a model without experts."""


class Routed(NamedTuple):
    """Logits (tokens, vocabulary) and the experts that the same tokens were sent to."""

    logits: NDArray[np.float32]
    chosen: Chosen


def with_float32_softmax(dtype: str) -> str:
    """In words: a model that computes in this dtype, its log-probabilities taken in float32."""
    return dtype if dtype.startswith("float32") else f"{dtype}, log-probabilities in float32"


class OpenCheckpoint(ABC):
    """A checkpoint, loaded and ready to run on one device."""

    name: str
    """Of the engine."""
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
    """The longest context that it takes: what the model was made for, or less where the engine was opened for
    less; None where neither is known."""
    opening_note: str | None = None
    """What whoever opens the checkpoint in another program must know, in one sentence; None where nothing."""
    parallel: int = 1
    """GPUs that read their part of the weights at the same time."""

    @abstractmethod
    def logits(self, token_ids: NDArray[np.int64], first: int = 0) -> NDArray[np.float32]:
        """Compute teacher-forced next-token logits of one window from row `first` on: (length,) token ids to
        (length - first, vocabulary)."""

    def routed_logits(self, token_ids: NDArray[np.int64], first: int = 0) -> Routed:
        """Compute the same logits, and say which experts the routers chose for the same tokens."""
        why = f"{self.name} does not tell which experts it chose"
        return Routed(self.logits(token_ids, first), Chosen(reason=why))

    @abstractmethod
    def language_model(self, batch_size: int) -> Any:
        """Give an lm-eval `LM` over this engine."""

    @abstractmethod
    def prefill(self, token_ids: NDArray[np.int64]) -> None:
        """Run (batch, length) token ids from an empty cache; returns when the device has finished."""

    @abstractmethod
    def decode(self, tokens: int) -> None:
        """Generate greedily, `tokens` steps of one token per sequence, after a prefill; returns when
        finished."""

    @abstractmethod
    def generate(self, prompts: Sequence[str], tokens: int) -> list[list[int]]:
        """Answer a batch of prompts greedily: at most so many token ids each, an end token included."""

    @abstractmethod
    def end_ids(self) -> frozenset[int]:
        """Give the tokens that end an answer."""

    @abstractmethod
    def memory(self) -> EngineMemory:
        """Count the bytes of weights, cache and state."""

    @abstractmethod
    def weight_reads(self) -> WeightReads:
        """Say what a decode must read of the weights."""

    @abstractmethod
    def close(self) -> None:
        """Give all memory back."""

    def drop_cache(self) -> None:
        """Give the last run's cache back to the device, so that the next run's peaks are its own."""
        return

    def reset_peaks(self) -> None:
        """Count the allocator's peaks anew."""
        return

    def peaks(self) -> AllocatorPeaks:
        """Give the allocator's peaks since the last reset."""
        return AllocatorPeaks()

    def resident(self) -> Resident:
        """Give what processes of its own hold, beside this one; nothing where it runs in this one."""
        return Resident()


class Engine(ABC):
    """What runs checkpoints. One file of `quantlab/engines` holds one, as `ENGINE`; another package brings
    one by an entry point of the group `quantlab.engines`.

    Only `name`, `title`, `summary`, `formats`, `requires`, `sixteen_bit`, `imports` and `open_checkpoint`
    have to be given."""

    name: str
    """The file's or the entry point's name."""
    title: str
    """As people write its name."""
    summary: str
    """One line for `quantlab list engines`."""
    formats: tuple[Format, ...]
    """What it opens."""
    runs_by_default: tuple[Format, ...] = ()
    """Formats that it runs where no engine is asked for by name."""
    requires: tuple[str, ...] = ()
    """The distributions whose versions decide the figures."""
    extra: str | None = None
    """The pip extra of quantlab that brings its library."""
    install: str | None = None
    """The command that brings it into an environment of its own, where it cannot live in quantlab's; else
    None."""
    sixteen_bit: str = BASELINE
    """The unquantized model in this engine: speed, runtime memory and the noise floor are compared with
    it."""
    splits_by_layers: bool = False
    """Whether it gives each of several GPUs whole layers, instead of a part of every layer."""
    serves_releases: bool = False
    """Whether its server takes a release as it is stored, whatever its format."""
    by_layers_note: str = ""
    """What a reader must know where its GPUs cannot share each layer."""
    cache_policy: str = "exact"
    """How it keeps the cache of sliding-window layers (`quantlab.architecture.kvcache`)."""
    cache_dtype: str | None = None
    """What it stores keys and values in unless told otherwise; None for the dtype that it computes in."""
    scores_without_cache: bool = False
    """Whether its tasks are scored without the variant's own type of cache."""
    apart: bool = False
    """Whether it runs in an environment of its own, and needs nothing of a method's libraries in this one."""
    reserves_gpu: bool = False
    """Whether it takes most of a GPU's memory as it opens, so that nothing else of ours may lie there."""

    @abstractmethod
    def imports(self, checkpoint: Checkpoint) -> tuple[str, ...]:
        """Name the modules that running any checkpoint brings in: their memory is the empty engine's, not the
        model's."""

    @abstractmethod
    def open_checkpoint(
        self,
        checkpoint: Checkpoint,
        device: str,
        dense: bool = False,
        float32: bool = False,
        demand: Demand = ANYTHING,
    ) -> OpenCheckpoint:
        """Load the checkpoint. `float32` asks for arithmetic in float32, where engine and format can do it;
        `demand` says what will be asked of it.

        Raises CellFailure where it cannot run here.
        """

    def dense_form(self, checkpoint: Checkpoint) -> str | None:
        """In words, the form in which a CPU measures quality more quickly; None where there is none."""
        return None

    def serve(self, target: ServeTarget) -> Served:
        """Give the command of its server."""
        return Served(None, notes=(f"{self.title} has no server that quantlab knows",))

    def cached_tokens(self, tokens: int, device: str) -> int:
        """Say for how many tokens it keeps the cache of a sequence of so many, where `cache_policy` does
        not."""
        return tokens

    def open_device(self, gpus: Sequence[str]) -> Resident:
        """Open the GPUs with nothing loaded, where the engine does so before it loads anything; give what
        processes of its own hold then. The next checkpoint is opened in these."""
        return Resident()

    def lacks(self) -> tuple[str, ...]:
        """Name the distributions that it needs and that are not installed where it runs."""
        from quantlab.environments.install import missing

        return missing(self.requires)

    def versions(self, device: str | None = None) -> dict[str, str]:
        """Give the versions of what decides its figures on a device; without one, of all that could."""
        return installed(self.requires)

    def place(self, device: str, environment: Mapping[str, str]) -> WorkerPlace:
        """Say what a process that will hold the engine must see of the machine."""
        return WorkerPlace(dict(environment), device)
