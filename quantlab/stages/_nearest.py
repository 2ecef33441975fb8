"""Measure what plain rounding to nearest loses at a variant's width, on the first windows of the evaluation
text.

The unquantized model is loaded in bfloat16 and rounded in place: the kinds of layers that the checkpoint has
quantized, with the variant's group size. A variant of 4 bits or fewer that loses far more than that is
suspicious. The result is kept and shared by all variants with the same grid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quantlab import methods
from quantlab.analysis.divergence import METRICS_VERSION, scored, window_values
from quantlab.comparison.nearest import MOST_BITS
from quantlab.environments.versions import installed
from quantlab.errors import CellFailure
from quantlab.formats import GGUF, unquantized
from quantlab.formats.quantization import quantization_config
from quantlab.hardware.device import Device
from quantlab.hardware.target import require_memory
from quantlab.methods import Grid
from quantlab.methods._nearest import FORMULA_VERSION, ROUNDED
from quantlab.outside import as_failure
from quantlab.progress import Progress
from quantlab.records import RoundToNearest, WeightKind
from quantlab.reference.comparable import require_finite
from quantlab.reference.store import Reference, require_sound
from quantlab.workspace.cell import Cell
from quantlab.workspace.checkpoint import Checkpoint
from quantlab.workspace.columns import Columns, Shape
from quantlab.workspace.items import key_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WINDOWS = 4
_BYTES = 2
"""Of a weight in bfloat16."""
_MORE_MEMORY = 1.3
"""Of what the weights take, for activations and logits."""


def compare_with_nearest(
    cell: Cell,
    checkpoint: Checkpoint,
    reference: Reference,
    device: Device,
    divergences: NDArray[np.float32],
    progress: Progress,
) -> tuple[RoundToNearest | None, str | None]:
    """Rounding to nearest beside the variant, whose divergences have the shape (windows, tokens); or why it
    was not measured."""
    if cell.variant.bits > MOST_BITS:
        return None, None
    grid = _grid(cell, checkpoint)
    token_ids = cell.prepared.token_ids("evaluation")[:WINDOWS]
    try:
        rounded = _Rounded(cell, checkpoint, grid, device)
        losses = rounded.divergences(reference, token_ids, progress)
    except (CellFailure, MemoryError, RuntimeError) as error:  # the variant's own figures are kept
        failure = as_failure(error)
        if failure is None or failure.kind == "disk_full":
            raise
        return None, f"rounding to nearest was not measured: {failure.reason}"
    return (
        RoundToNearest(
            bits=cell.variant.bits,
            group_size=grid.group_size,
            symmetric=grid.symmetric,
            windows=len(token_ids),
            kinds=rounded.kinds,
            kl_divergence_nats=float(losses.mean()),
            variant_kl_divergence_nats=float(divergences[: len(token_ids)].mean()),
        ),
        None,
    )


def _grid(cell: Cell, checkpoint: Checkpoint) -> Grid:
    """The grid that the variant's settings name, or somebody else's checkpoint."""
    method = methods.load(cell.variant.method)
    if cell.variant.external and checkpoint.manifest.format != GGUF:
        return method.grid_in(quantization_config(checkpoint.weights))
    return method.grid(methods.settings_in(cell.recipe, cell.variant))


class _Rounded:
    """The unquantized model with the layers rounded that a checkpoint has quantized."""

    def __init__(self, cell: Cell, checkpoint: Checkpoint, grid: Grid, device: Device) -> None:
        if device.places.several:
            raise CellFailure("unsupported", "the model lies on several devices, and rounding needs one")
        self.source = cell.prepared.source()
        require_memory(
            device, int(_BYTES * _MORE_MEMORY * self.source.parameters), "the unquantized model in bfloat16"
        )
        self.cell, self.device, self.grid = cell, device, grid
        self.kinds = _quantized_kinds(cell, checkpoint)
        if not self.kinds:
            raise CellFailure("unsupported", "the checkpoint has quantized no layers of the model")

    def divergences(
        self, reference: Reference, token_ids: NDArray[np.int64], progress: Progress
    ) -> NDArray[np.float32]:
        """From the reference, shape (windows, tokens); only windows that are not kept yet are computed."""
        rows = scored(token_ids.shape[1])
        key = key_of(
            *(METRICS_VERSION, FORMULA_VERSION, self.cell.variant.bits, self.grid, self.kinds),
            *(reference.notes, self.device.name, installed(("torch", "transformers", "numpy"))),
        )
        shape = Shape(1, len(token_ids), rows.stop - rows.start)
        done = Columns(self.cell.root, reference.sha256, "nearest", key, shape)
        missing = [i for i in range(len(token_ids)) if not done.has(i)]
        if missing:
            what = f"{self.cell.variant.slug}: rounding to nearest at {self.cell.variant.bits} bits"
            with progress.step(what, len(missing)) as step:
                model = self._model()
                for i in missing:
                    logits = _logits(model, token_ids[i], self.device.places.first)
                    require_finite(logits, f"window {i + 1} of the evaluation text, rounded to nearest")
                    exact = reference.logits(i)
                    require_sound(exact, i)
                    done.put(i, [window_values(exact, logits[rows.start :], token_ids[i]).kl])
                    step.advance()
        losses: NDArray[np.float32] = done.read()[0]
        return losses

    def _model(self) -> Any:
        import torch

        from quantlab.methods._nearest import round_model
        from quantlab.models.loading import load_model

        model = load_model(
            self.cell.prepared.weights,
            self.source.trust_remote_code,
            _not_loaded,
            dtype=torch.bfloat16,
            device_map={"": self.device.places.first},
        ).eval()
        round_model(model, self.cell.variant.bits, self.grid, self.kinds)
        return model


def _not_loaded(why: str) -> CellFailure:
    return CellFailure("unsupported", f"the unquantized model does not load here: {why}")


def _quantized_kinds(cell: Cell, checkpoint: Checkpoint) -> tuple[WeightKind, ...]:
    """The kinds of layers of which the checkpoint left less than half in 16 bits."""
    stored = (
        unquantized.tensors_of_gguf(checkpoint.gguf())
        if checkpoint.manifest.format == GGUF
        else unquantized.tensors_of(checkpoint.weights)
    )
    left = unquantized.weights_left(stored)
    all_of_it = unquantized.weights_left(unquantized.tensors_of(cell.prepared.weights))
    return tuple(kind for kind in ROUNDED if kind in all_of_it and 2 * left.get(kind, 0) < all_of_it[kind])


def _logits(model: Any, token_ids: NDArray[np.int64], device: str) -> NDArray[np.float32]:
    """Of one window, shape (tokens, vocabulary)."""
    import torch

    with torch.inference_mode():
        ids = torch.from_numpy(token_ids)[None].to(device)
        logits: NDArray[np.float32] = model(input_ids=ids, use_cache=False).logits[0].float().cpu().numpy()
    return logits
