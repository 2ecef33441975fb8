"""Define what a method must provide: facts for planner, stages, report and serving, and `quantize`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import BaseModel

from quantlab.architecture.parameters import Matrix, ParameterCount
from quantlab.architecture.weight_bytes import WeightBytes, packed_bytes
from quantlab.formats import SAFETENSORS, Format
from quantlab.frozen import Frozen
from quantlab.records import ExpertTokens

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from quantlab.progress import Progress

_USUAL_GROUP = 128
"""Of a method or somebody else's checkpoint that names no group size."""
Arithmetic = Literal["bf16", "fp8", "int8"]


@dataclass(frozen=True)
class Job:
    """All that a method needs to make one checkpoint."""

    source: Path
    """Folder of the unquantized model: safetensors and tokenizer, or the F16 GGUF and its importance
    matrix."""
    bits: int
    settings: Any
    """The method's own Settings."""
    calibration: NDArray[np.int64]
    """Token ids, shape (windows, length)."""
    destination: Path
    """An empty folder; it becomes the checkpoint only if everything goes well."""
    device: str
    """A torch device, `cpu` or `cuda:0`."""
    seed: int
    progress: Progress
    trust_remote_code: bool = False
    check_tokens: NDArray[np.int64] | None = None
    """Token ids (length,) that the loss in memory will be asked for, for a library whose model does not
    survive saving."""


class InMemory(NamedTuple):
    """The quantized model as it stood in memory after saving."""

    loss: Callable[[NDArray[np.int64]], float] | None
    """Mean negative log-likelihood in nats of token ids (length,), by the quantized model in memory;
    None where the library quantizes file to file and never holds a model that runs."""
    expected_layers: int | None
    """How many layers were asked to be quantized; None where nobody here asked (somebody else's
    checkpoint)."""
    notes: tuple[str, ...] = ()
    """What a reader of the numbers must know, one sentence each."""
    layers: frozenset[str] = frozenset()
    """Their names, where the library tells them."""
    expert_tokens: ExpertTokens | None = None
    """Calibration tokens that each expert saw, where the library tells them."""


class Grid(NamedTuple):
    """Equally spaced values that a group of weights is rounded to."""

    group_size: int
    """Columns that share a scale; 0 or less for a whole row."""
    symmetric: bool
    """Without a zero point."""


class Needs(NamedTuple):
    """Memory that is certainly needed to quantize and to load the checkpoint again; less than the true
    peak."""

    device_bytes: int
    """Of the device that quantizes, a GPU or the machine itself."""
    host_bytes: int = 0
    """Of the machine, whatever the device is."""


class Serving(NamedTuple):
    """How a server of the method's engine takes its checkpoints."""

    flags: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """What a reader of the command must know, one sentence each."""
    loads: bool = True
    """Whether the server loads them at all; the notes say why not."""
    several_gpus: bool = True
    """Whether it splits them over several GPUs."""


class NoSettings(Frozen):
    """Nothing can be set."""


class Method(ABC):
    """A way of quantizing. One file of `quantlab/methods` holds one, as `METHOD`; another package brings one
    by an entry point of the group `quantlab.methods`.

    Only `name`, `summary`, `bits`, `requires` and `quantize` have to be given. Heavy imports stand inside
    `quantize`, so that listing the methods imports no torch."""

    name: str
    """The file's or the entry point's name; the first word of its variants."""
    summary: str
    """One line for `quantlab list methods`."""
    bits: tuple[int, ...]
    """The widths that it offers, from most to fewest."""
    format: Format = SAFETENSORS
    """What it writes."""
    starts_from: Literal["source", "gguf"] = "source"
    """The unquantized model's safetensors, or its F16 GGUF with the importance matrix."""
    extra: str | None = None
    """The pip extra of quantlab that brings its library."""
    requires: tuple[str, ...] = ()
    """The distributions whose versions decide the checkpoint."""
    Settings: type[BaseModel] = NoSettings
    """What a recipe may set."""
    changes_weights: bool = True
    """False for the unquantized model itself."""
    stores_tokenizer: bool = True
    """Whether its library saves a tokenizer beside the weights."""
    stores_tower: bool = True
    """Whether a vision tower is in its checkpoint, in 16 bits."""
    loaded_by: tuple[str, ...] = ()
    """Modules that an engine imports to load its checkpoints: their memory is the empty engine's, not the
    model's."""
    marks: tuple[str, ...] = ()
    """Its names in `quantization_config.quant_method` of a checkpoint's config.json."""
    lays_out_releases: bool = True
    """Whether other people's checkpoints with its marks store a matrix as `matrix_bytes` says."""
    widths_read: tuple[int, ...] | None = None
    """Widths of other people's checkpoints that are read; None for those that it offers."""
    served_by: str = "vllm"
    """The engine whose server runs its checkpoints."""
    colour: str | None = None
    """In plots; None for the next free one."""

    @abstractmethod
    def quantize(self, job: Job) -> InMemory:
        """Write a loadable checkpoint into `job.destination`. Raises CellFailure for what the library
        refuses."""

    def environment(self) -> Mapping[str, str]:
        """Environment variables that its stage runs with."""
        return {}

    def grid(self, settings: Any) -> Grid:
        """The grid that a weight is rounded to, for the comparison with plain rounding to nearest."""
        group_size = getattr(settings, "group_size", None) or _USUAL_GROUP
        return Grid(int(group_size), bool(getattr(settings, "symmetric", False)))

    def grid_in(self, config: Mapping[str, Any]) -> Grid:
        """The grid of somebody else's checkpoint, by its quantization_config."""
        usual = self.grid(self.Settings())
        size, symmetric = config.get("group_size"), config.get("sym")
        return Grid(
            size if isinstance(size, int) else usual.group_size,
            symmetric if isinstance(symmetric, bool) else usual.symmetric,
        )

    def effective(self, settings: Any, bits: int) -> dict[str, Any]:
        """What the settings come to at a width, for the report's reader."""
        values: dict[str, Any] = settings.model_dump(mode="json")
        return values

    def usual(self, bits: int) -> dict[str, Any]:
        """What its settings come to at a width where a recipe sets nothing; nothing at a width that it does
        not offer."""
        return self.effective(self.Settings(), bits) if bits in self.bits else {}

    def memory(self, parameters: int, bits: int) -> Needs:
        """Memory that quantizing a model of so many parameters certainly needs: the weights on the device, in
        the width they are loaded in."""
        return Needs(parameters * max(bits, 8) // 8 if self.starts_from == "source" else 0)

    def why_left(self, count: ParameterCount, matrix: Matrix) -> str | None:
        """Why a matrix stays in 16 bits; None where it is quantized. Embeddings, heads, routers and towers
        always stay."""
        return None if matrix.role in ("linear", "expert") else f"a {matrix.role} stays in 16 bits"

    def matrix_bytes(self, matrix: Matrix, bits: int, settings: Any) -> int | None:
        """Bytes of one quantized matrix with its scales and indices; None where nobody has worked them
        out."""
        return None

    def weight_bytes(self, count: ParameterCount, bits: int, settings: Any) -> WeightBytes | None:
        """Bytes of the model's tensors; None where the bytes of a matrix are not known before it is made."""
        packed = []
        for matrix in count.tensors:
            if self.why_left(count, matrix) is None:
                size = self.matrix_bytes(matrix, bits, settings)
                if size is None:
                    return None
                packed.append((matrix, size * matrix.how_many))
        return packed_bytes(count, packed, self.remarks(count, settings))

    def remarks(self, count: ParameterCount, settings: Any) -> tuple[str, ...]:
        """What a reader of the bytes must know of this method on this architecture, one sentence each."""
        remarks = []
        size = getattr(settings, "group_size", None)
        quantized = (m for m in count.tensors if self.why_left(count, m) is None)
        odd = sorted({m.in_features for m in quantized if size and size > 0 and m.in_features % size})
        if odd:
            rows = ", ".join(map(str, odd))
            remarks.append(
                f"The group of {size} does not divide rows of {rows}: set group_size to a divisor."
            )
        if count.by_role.get("vision"):
            remarks.append("The vision tower stays in 16 bits.")
        return tuple(remarks)

    def forced_dtype(self, device: str) -> str | None:
        """The dtype that its usual engine computes all layers in on a device, whatever the model's own is;
        None where the model's own stays."""
        return None

    def multiplies_in(self, bits: int) -> Arithmetic:
        """What its kernels multiply in: 16 bits after dequantizing, unless the method says otherwise."""
        return "bf16"

    def width_in(self, config: Mapping[str, Any]) -> object:
        """The width that a checkpoint's quantization_config says; somebody else wrote it, and it may be
        anything."""
        return config.get("bits") or 4

    def why_not_read(self, config: Mapping[str, Any]) -> str | None:
        """Why somebody else's checkpoint with its marks cannot be measured, by its quantization_config; None
        where it can."""
        return None

    def reading_notes(self, config: Mapping[str, Any], device: str) -> tuple[str, ...]:
        """What a reader of the numbers of somebody else's checkpoint must know, one sentence each."""
        return ()

    def served_path(self, checkpoint: str, source: str) -> str:
        """What a server opens: the checkpoint's folder, or a file in it; `source` is where the unquantized
        weights are."""
        return checkpoint

    def serving(self, bits: int, source: str) -> Serving:
        """How a server takes its checkpoints of a width; `source` is where the unquantized weights are."""
        return Serving(
            notes=(f"no server is known to load checkpoints of {self.name}: run it with quantlab",),
            loads=False,
        )

    def no_kernel(self, bits: int) -> Serving:
        """Say that vLLM has no kernel for a width."""
        note = (
            f"vLLM's kernels for {self.name} do not take {bits} bits: run it with transformers, as quantlab"
            " does"
        )
        return Serving(notes=(note,), loads=False)
