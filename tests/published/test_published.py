"""The loss of checkpoints in the formats that people publish is that of their weights, dequantized by hand."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from quantlab.analysis.divergence import window_values
from quantlab.engines._transformers.open import TransformersEngine
from quantlab.errors import CellFailure
from quantlab.methods._foreign import identify, reading_notes
from quantlab.models.tiny import write_tiny_model

from . import checkpoints, dequantized, unpacked
from .dequantized import Rounding

TOKENS = np.random.default_rng(0).integers(0, 1000, 64)
WEIGHTS_AND_ACTIVATIONS = {
    "W4A16": None,
    "W4A16_ASYM": None,
    "W8A8": dequantized.int8_per_token,
    "FP8": dequantized.fp8_fixed,
    "FP8_DYNAMIC": dequantized.fp8_per_token,
    "FP8_BLOCK": dequantized.fp8_per_block,
    "NVFP4A16": None,
    "NVFP4": dequantized.nvfp4,
    "MXFP4A16": None,
    "MXFP4": dequantized.mxfp4,
}
BITS = {"W4": 4, "W8": 8, "FP8": 8, "NVF": 4, "MXF": 4}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model("llama", tmp_path_factory.mktemp("published") / "base")


@functools.cache
def _engine_logits(folder: Path) -> np.ndarray:
    engine = TransformersEngine(folder, folder, "cpu")
    try:
        return engine.logits(TOKENS)
    finally:
        engine.close()


def _logits(model: Any) -> np.ndarray:
    with torch.inference_mode():
        logits: np.ndarray = model(input_ids=torch.from_numpy(TOKENS)[None]).logits[0].float().numpy()
    return logits


def _nats(reference: np.ndarray, other: np.ndarray) -> float:
    return float(window_values(reference, other, TOKENS).kl.mean())


def _check(
    base: Path, folder: Path, rounding: Rounding | None, kept_in: torch.dtype = torch.bfloat16
) -> None:
    reference, measured = _engine_logits(base), _engine_logits(folder)
    by_hand = _logits(dequantized.model(base, folder, rounding, kept_in))
    loss, expected, apart = _nats(reference, measured), _nats(reference, by_hand), _nats(by_hand, measured)
    assert loss > 2e-4 and loss == pytest.approx(expected, rel=0.01)
    assert apart < loss / 100


@pytest.mark.parametrize("preset", WEIGHTS_AND_ACTIVATIONS)
def test_compressed_tensors(preset: str, base: Path, tmp_path: Path) -> None:
    folder = checkpoints.compressed(base, tmp_path / preset, preset)
    variant = identify(folder)
    assert variant.method == "compressed_tensors"
    assert variant.bits == next(bits for start, bits in BITS.items() if preset.startswith(start))
    _check(base, folder, WEIGHTS_AND_ACTIVATIONS[preset])
    rounded = any("Activations were rounded" in note for note in reading_notes(folder, "cpu"))
    assert rounded == (WEIGHTS_AND_ACTIVATIONS[preset] is not None)


@pytest.mark.parametrize(
    ("algorithm", "rounding", "bits"),
    [("FP8", dequantized.fp8_fixed, 8), ("NVFP4", dequantized.nvfp4, 4)],
)
@pytest.mark.parametrize("in_config", [True, False])
def test_modelopt(
    algorithm: str, rounding: Rounding, bits: int, in_config: bool, base: Path, tmp_path: Path, capsys: Any
) -> None:
    folder = checkpoints.modelopt(base, tmp_path / f"modelopt-{algorithm}", algorithm, in_config)
    variant = identify(folder)
    assert (variant.method, variant.bits) == ("modelopt", bits)
    _check(base, folder, rounding, torch.float32)


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model("qwen3_moe", tmp_path_factory.mktemp("mixture") / "base")


@pytest.mark.parametrize("preset", ["W8A8", "NVFP4A16", "W4A16_ASYM"])
def test_experts_are_unpacked_with_all_their_parts(preset: str, mixture: Path, tmp_path: Path) -> None:
    """transformers alone takes the scale of a whole matrix for none, and finds no INT8 and no zero points."""
    from transformers import AutoModelForCausalLM

    folder = checkpoints.compressed_apart(mixture, tmp_path / preset, preset)
    dense = unpacked.write_dense(mixture, folder, tmp_path / "dense")
    rounding = WEIGHTS_AND_ACTIVATIONS[preset]
    dtype = torch.float32 if rounding else torch.bfloat16
    model: Any = AutoModelForCausalLM.from_pretrained(dense, dtype=dtype).eval()
    if rounding:
        dequantized.round_inputs(model, rounding)
    by_hand = _logits(model)
    reference, measured = _engine_logits(mixture), _engine_logits(folder)
    loss = _nats(reference, measured)
    assert 1e-4 < loss < 0.2 and loss == pytest.approx(_nats(reference, by_hand), rel=0.02)
    assert _nats(by_hand, measured) < loss / 50


def _refuses_without(folder: Path, part: str) -> None:
    """A layer without its input scale would lose less than a kernel does, and nothing would say so."""
    tensors, name = load_file(folder / "model.safetensors"), f"model.layers.1.mlp.up_proj.{part}"
    del tensors[name]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CellFailure, match=rf"1 tensors are missing: {name}") as failure:
        TransformersEngine(folder, folder, "cpu")
    assert failure.value.kind == "broken_checkpoint"


@pytest.mark.parametrize("part", ["weight", "input_scale"])
@pytest.mark.parametrize("algorithm", ["FP8", "NVFP4"])
def test_a_part_that_a_layer_of_modelopt_lacks_is_named(
    algorithm: str, part: str, base: Path, tmp_path: Path
) -> None:
    _refuses_without(checkpoints.modelopt(base, tmp_path / "broken", algorithm), part)


@pytest.mark.parametrize(
    ("preset", "part"),
    [
        ("W4A16", "weight_packed"),
        ("W4A16_ASYM", "weight_zero_point"),
        ("W8A8", "weight_scale"),
        ("FP8", "input_scale"),
        ("NVFP4", "input_global_scale"),
    ],
)
def test_a_part_that_a_layer_of_compressed_tensors_lacks_is_named(
    preset: str, part: str, base: Path, tmp_path: Path
) -> None:
    _refuses_without(checkpoints.compressed(base, tmp_path / "broken", preset), part)


ZERO = "model.layers.1.mlp.{}up_proj.weight_zero_point"


@pytest.mark.engines
@pytest.mark.parametrize("family", ["llama", "qwen3_moe"])
@pytest.mark.parametrize("change", ["missing", "all missing", "unpacked", "a row more", "one for all groups"])
def test_zero_points_that_are_not_those_of_the_layers_are_named(
    family: str, change: str, base: Path, mixture: Path, tmp_path: Path
) -> None:
    """Experts with a zero point for all groups of a row were opened, and measured with it."""
    make = checkpoints.compressed if family == "llama" else checkpoints.compressed_apart
    folder = make(base if family == "llama" else mixture, tmp_path / "broken", "W4A16_ASYM")
    tensors = load_file(folder / "model.safetensors")
    name = ZERO.format("" if family == "llama" else "experts.1.")
    zeros = tensors.pop(name)
    match change:
        case "all missing":
            tensors = {name: t for name, t in tensors.items() if not name.endswith("weight_zero_point")}
        case "unpacked":
            tensors[name] = zeros.repeat_interleave(8, 0).to(torch.int8)
        case "a row more":
            tensors[name] = torch.cat((zeros, zeros[:1]))
        case "one for all groups":
            tensors[name] = zeros[:, :1].contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    said = "tensors are missing: " if "missing" in change else "1 tensors are of another shape: "
    named = r"model.layers.0.mlp.\S+.weight_zero_point" if change == "all missing" else re.escape(name)
    with pytest.raises(CellFailure, match=said + named) as failure:
        TransformersEngine(folder, folder, "cpu")
    assert failure.value.kind == "broken_checkpoint"


def test_fp8_with_a_scale_per_block(base: Path, tmp_path: Path) -> None:
    folder = checkpoints.fp8_blocks(base, tmp_path / "fp8-blocks")
    assert identify(folder).method == "fp8"
    _check(base, folder, None)
    assert any("stayed in 16 bits" in note for note in reading_notes(folder, "cpu"))


def test_mxfp4_as_gpt_oss_is_released(tmp_path: Path) -> None:
    """Its experts are what the base's experts become when they are rounded by hand."""
    from transformers import AutoModelForCausalLM

    base = write_tiny_model("gpt_oss", tmp_path / "base")
    folder = checkpoints.mxfp4_experts(base, tmp_path / "mxfp4")
    variant = identify(folder)
    assert (variant.method, variant.bits) == ("mxfp4", 4)
    dense: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    for module in dense.modules():
        for name in ("gate_up_proj", "down_proj"):
            if isinstance(parameter := getattr(module, name, None), torch.nn.Parameter):
                parameter.data = checkpoints.rounded_to_mxfp4(parameter.data.mT).mT.to(torch.bfloat16)
    reference, measured, by_hand = _engine_logits(base), _engine_logits(folder), _logits(dense.eval())
    assert _nats(reference, measured) > 0.001
    assert _nats(reference, measured) == pytest.approx(_nats(reference, by_hand), rel=0.01)
    assert _nats(by_hand, measured) < 1e-5
