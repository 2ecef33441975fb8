"""A method and an engine of another package: each is all that quantlab is told of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quantlab.engines import ANYTHING, Demand
from quantlab.engines.transformers import Transformers, TransformersEngine
from quantlab.methods import InMemory, Job, Method


class Rounded(Method):
    """Round every linear layer to the nearest of a few values per row; stored as it is computed, in 16
    bits."""

    name = "rounded"
    summary = "round to nearest, for a test"
    bits = (8, 4)
    requires = ("torch", "transformers")

    def quantize(self, job: Job) -> InMemory:
        """Round the weights in place and save them."""
        import torch

        from quantlab.methods._loss import model_loss
        from quantlab.models.loading import load_model

        model = load_model(job.source, job.trust_remote_code, dtype=torch.bfloat16)
        for layer in model.model.modules():
            if isinstance(layer, torch.nn.Linear):
                with torch.no_grad():
                    step = layer.weight.abs().amax(dim=1, keepdim=True) / (2 ** (job.bits - 1) - 1)
                    layer.weight.copy_((layer.weight / step).round() * step)
        model.save_pretrained(job.destination)
        return InMemory(model_loss(model), None)

    def matrix_bytes(self, matrix: Any, bits: int, settings: Any) -> int:
        """Bytes as stored."""
        return 2 * matrix.in_features * matrix.out_features


class Sibling(Transformers):
    """transformers under another name."""

    name = "sibling"
    title = "Sibling"
    runs_by_default = ()
    summary = "transformers under another name, for a test"

    def open_checkpoint(
        self,
        checkpoint: Any,
        device: str,
        dense: bool = False,
        float32: bool = False,
        demand: Demand = ANYTHING,
    ) -> TransformersEngine:
        """Open it as transformers does."""
        opened = super().open_checkpoint(checkpoint, device, dense, float32, demand)
        opened.name = self.name
        return opened


METHOD, ENGINE = Rounded(), Sibling()
HERE = Path(__file__).parent
