"""One cell of the table of architectures: a tiny model and a variant through the pipeline's own stages.

Each function runs in a process of its own, which `architectures.py` starts and ends: `prepare_family`
prepares, converts to GGUF, computes the reference and plain round-to-nearest; `run_cell` quantizes and checks
in another process, and measures the checkpoint in its own."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import yaml

from quantlab.errors import CellFailure, QuantlabError
from quantlab.files import write_text
from quantlab.progress import Progress
from quantlab.records import STAGES, QuantizeRecord, StageName
from quantlab.workspace.cell import Cell
from quantlab.workspace.results import read_record, record_path

QUIET = Progress(quiet=True)
GROUP = 32
"""Columns that share a scale: rows of 64, as a latent attention's, have no group of 128."""
STEPS = 20
"""Steps of auto-round for each block, of its usual 200: ten times as quick, and somewhat worse."""
GROUPED = ("gptq", "awq", "autoround")
VARIANTS = (
    *("gguf-16", "gguf-8", "gguf-4", "gguf-2", "bitsandbytes-8", "bitsandbytes-4", "fp8-8"),
    *("gptq-4", "awq-4", "autoround-4", "gptq-2", "autoround-2"),
)
PROMPTS, TOKENS = ("The history of the city", "The first book was"), 8
_RECIPE: dict[str, Any] = {
    "seed": 7,
    "calibration": {"text": "embedded", "windows": 8, "length": 128},
    "evaluation": {"text": "embedded", "windows": 4, "length": 128},
    "measure": {"prompt_tokens": 16, "decode_tokens": 4, "repeats": 2},
    "tasks": {"set": "embedded", "names": ["copa"], "items": 4, "batch_size": 4},
}


def settings_of(variant: str) -> dict[str, Any]:
    """The settings of a variant in the recipe."""
    method = variant.split("-")[0]
    steps = {"iterations": STEPS} if method == "autoround" else {}
    return steps | ({"group_size": GROUP} if method in GROUPED else {})


def prepare_family(root: Path, name: str, to_gguf: bool = True) -> dict[str, Any]:
    """Write the tiny model and everything that its cells share; what came of the conversion, which takes
    longest and is left out where no cell needs it."""
    from quantlab.hardware.device import find
    from quantlab.models.tiny import write_tiny_model
    from quantlab.stages import convert, prepare, reference

    write_tiny_model(name, root / "tiny" / name)
    recipe = _RECIPE | {
        "model": name,
        "source": {"path": str(root / "tiny" / name)},
        "variants": {variant: settings_of(variant) for variant in VARIANTS},
    }
    write_text(root / "recipes" / f"{name}.yaml", yaml.safe_dump(recipe))
    prepare.run(root, name, QUIET)
    reference.run(root, name, find("cpu"), QUIET)
    if not to_gguf:
        return {"gguf": "not asked for"}
    made = convert.run(root, name, root / "logs" / name / "convert.log", QUIET)
    return {"gguf": made.failure.reason if made.failure else None}


def round_family(root: Path, name: str) -> dict[str, float]:
    """Mean divergence in nats of plain round-to-nearest, by width: every linear layer and expert of the
    language model, in groups of 32 columns, asymmetric; routers are left. Under `4-whole` head and embedding
    are rounded too, as GGUF does."""
    import numpy as np
    import torch

    from quantlab.analysis.divergence import window_values
    from quantlab.hardware.device import find
    from quantlab.methods import Grid
    from quantlab.methods._nearest import ROUNDED, round_model
    from quantlab.models.loading import load_model
    from quantlab.reference.store import Reference, folder_of

    cell = Cell(root, name, "baseline-16")
    reference, token_ids = (
        Reference(folder_of(root, name), find("cpu")),
        cell.prepared.token_ids("evaluation"),
    )
    divergences = {}
    for bits, whole in itertools.product((8, 4, 3, 2), (False, True)):
        model = load_model(cell.prepared.weights, False, dtype=torch.float32)
        kinds = (*ROUNDED, "embedding", "head") if whole else ROUNDED
        round_model(model, bits, Grid(GROUP, symmetric=False), kinds)
        losses = []
        for place, ids in enumerate(token_ids):
            with torch.inference_mode():
                logits = (
                    model(input_ids=torch.from_numpy(ids)[None], use_cache=False).logits[0].float().numpy()
                )
            losses.append(window_values(reference.logits(place), logits, ids).kl.mean())
        divergences[f"{bits}-whole" if whole else str(bits)] = float(np.mean(losses))
    return divergences


def run_cell(root: Path, name: str, variant: str) -> dict[str, Any]:
    """Quantize, check and measure one cell; what came of it, by its records."""
    from quantlab.stages.isolation import run_isolated

    cell = Cell(root, name, variant)
    try:
        run_isolated(cell, "quantize", "cpu", True)
    except (QuantlabError, CellFailure) as error:
        return {"stage": "quantize", "kind": "refused", "reason": str(error)}
    made = read_record(record_path(root, name, variant, "quantize"), QuantizeRecord)
    assert made is not None
    if made.failure:
        return {"stage": "quantize", "kind": made.failure.kind, "reason": made.failure.reason}
    found = measure(cell)
    left = made.unquantized
    share = {"in_16_bits": left.share, "promised_in_16_bits": left.share_of_promised} if left else {}
    return found | share | {"layers": made.quantized_layers, "bits_per_weight": made.bits_per_weight}


def measure(cell: Cell) -> dict[str, Any]:
    """Diverge, evaluate and generate in this process, which has not quantized; what came of it."""
    from quantlab import engines
    from quantlab.stages.__main__ import main

    found: dict[str, Any] = {}
    place = {"root": str(cell.root), "model": cell.model, "variant": cell.variant.slug, "device": "cpu"}
    stages: tuple[StageName, ...] = ("diverge", "evaluate")
    for stage in stages:
        log = str(cell.root / "logs" / cell.model / f"{cell.variant.slug}-{stage}.log")
        error = cell.root / f"{cell.variant.slug}.error.json"
        error.unlink(missing_ok=True)
        main(place | {"stage": stage, "quiet": True, "log": log, "error": str(error), "options": {}})
        path = record_path(cell.root, cell.model, cell.variant.slug, stage)
        record: Any = read_record(path, STAGES[stage].record)
        if record is None:
            reason = json.loads(error.read_text(encoding="utf-8"))["message"]
            return found | {"stage": stage, "kind": "crashed", "reason": reason}
        if record.failure:
            return found | {"stage": stage, "kind": record.failure.kind, "reason": record.failure.reason}
        if stage == "diverge":
            found["measured_nats"] = record.kl_divergence_nats.value
            routed = record.routing_changes
            found["rerouted"] = routed.changed_token_share.value if routed else None
    checkpoint = cell.checkpoint()
    engine = engines.load(engines.engine_for(checkpoint.manifest.format)).open_checkpoint(
        checkpoint, "cpu", False
    )
    made = engine.generate(PROMPTS, TOKENS)
    engine.close()
    if len(made) != len(PROMPTS) or not all(made):
        return found | {"stage": "generate", "kind": "crashed", "reason": "nothing was generated"}
    return {"nats": found["measured_nats"], "rerouted": found["rerouted"]}
