"""Run safetensors checkpoints of every method with transformers, on a CPU or a CUDA device.

Its tokens/s is what an eager `generate` reaches, not what a server reaches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from quantlab.engines._contract import ANYTHING, Demand, Engine, Resident
from quantlab.engines._transformers.dense import form_of
from quantlab.engines._transformers.load import computes_in_float32
from quantlab.engines._transformers.open import TransformersEngine
from quantlab.formats import SAFETENSORS
from quantlab.formats.quantization import quantization_config

if TYPE_CHECKING:
    from quantlab.workspace.checkpoint import Checkpoint


class Transformers(Engine):
    """Hugging Face transformers."""

    name = "transformers"
    title = "transformers"
    summary = "safetensors checkpoints through Hugging Face transformers"
    formats = (SAFETENSORS,)
    runs_by_default = (SAFETENSORS,)
    requires = ("torch", "transformers", "accelerate")
    cache_policy = "transformers"
    scores_without_cache = True

    def imports(self, checkpoint: Checkpoint) -> tuple[str, ...]:
        """torch and transformers' registry of models."""
        return ("torch", "transformers.models.auto.modeling_auto")

    def open_checkpoint(
        self,
        checkpoint: Checkpoint,
        device: str,
        dense: bool = False,
        float32: bool = False,
        demand: Demand = ANYTHING,
    ) -> TransformersEngine:
        """Load a checkpoint; `dense` takes the form that `_dense.form_of` names. Its memory grows as it runs,
        whatever the `demand`. Raises CellFailure where it cannot run."""
        checkpoint.require_weights()
        manifest = checkpoint.manifest
        cache = manifest.settings.get("cache")
        in_float32 = float32 and (
            dense or computes_in_float32(quantization_config(checkpoint.weights), device)
        )
        dtype = "float32" if in_float32 else "auto"
        return TransformersEngine(
            checkpoint.weights, checkpoint.tokenizer, device, dense, manifest.trust_remote_code, dtype, cache
        )

    def dense_form(self, checkpoint: Checkpoint) -> str | None:
        """Packed layers dequantized once, and float32 where the CPU has no bfloat16 instructions."""
        return form_of(checkpoint.weights)

    def open_device(self, gpus: Sequence[str]) -> Resident:
        """Let CUDA make its context on each GPU."""
        import torch

        for gpu in gpus:
            torch.zeros(1, device=gpu)
        return Resident()


ENGINE = Transformers()
