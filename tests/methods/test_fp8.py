"""FP8 in compressed-tensors' format: what is stored, that transformers' FP8 kernels run it, and that what is
loaded is what was quantized."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from quantlab.analysis.divergence import window_values
from quantlab.architecture._meta_count import answer
from quantlab.architecture.parameters import ParameterCount
from quantlab.engines._transformers import compressed
from quantlab.engines._transformers.open import TransformersEngine
from quantlab.errors import CellFailure
from quantlab.formats import stored
from quantlab.formats.safetensors import parameters
from quantlab.formats.unquantized import tensors_of, weights_left
from quantlab.methods import InMemory, Job
from quantlab.methods._loss import mean_loss
from quantlab.methods.fp8 import METHOD
from quantlab.models.tiny import write_tiny_model
from quantlab.progress import Progress

TOKENS = np.random.default_rng(0).integers(4, 900, 64)
FAMILIES = ("llama", "mixtral", "deepseek_v3", "gpt_oss", "granitemoehybrid")
"""A dense model, experts one by one under other names, a latent attention, fused experts in turn with biases,
and fused experts under other names."""


def job_of(source: Path, destination: Path) -> Job:
    destination.mkdir()
    return Job(
        source=source,
        bits=8,
        settings=METHOD.Settings(),
        calibration=np.zeros((0, 0), np.int64),
        destination=destination,
        device="cpu",
        seed=0,
        progress=Progress(quiet=True),
    )


class Quantized:
    """A tiny model in FP8."""

    def __init__(self, family: str, root: Path) -> None:
        self.source, self.folder = write_tiny_model(family, root / family), root / f"{family}-fp8"
        self.made: InMemory = METHOD.quantize(job_of(self.source, self.folder))

    def logits(self) -> np.ndarray:
        engine = TransformersEngine(self.folder, self.folder, "cpu")
        try:
            return engine.logits(TOKENS)
        finally:
            engine.close()


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Quantized]:
    root = tmp_path_factory.mktemp("fp8")
    return {family: Quantized(family, root) for family in FAMILIES}


def test_gpu_row_6_it_is_stored_as_vllm_and_transformers_multiply_it(
    quantized: dict[str, Quantized],
) -> None:
    """The old checkpoints' scales dequantized each weight in every forward pass (gptqmodel 7.7, fp8.py)."""
    folder = quantized["llama"].folder
    said = json.loads((folder / "config.json").read_text())["quantization_config"]
    group = said["config_groups"]["group_0"]
    assert said["quant_method"] == "compressed-tensors" and said["format"] == "float-quantized"
    assert said["quantization_status"] == "compressed" and said["ignore"] == ["lm_head"]
    assert (group["weights"]["type"], group["weights"]["num_bits"], group["weights"]["strategy"]) == (
        "float",
        8,
        "channel",
    )
    assert (group["input_activations"]["strategy"], group["input_activations"]["dynamic"]) == ("token", True)
    from safetensors.torch import load_file

    tensors = load_file(folder / "model.safetensors")
    weight, scale = (tensors[f"model.layers.0.mlp.up_proj.{part}"] for part in ("weight", "weight_scale"))
    assert weight.dtype == torch.float8_e4m3fn and scale.shape == (weight.shape[0], 1)
    source = load_file(quantized["llama"].source / "model.safetensors")["model.layers.0.mlp.up_proj.weight"]
    step = source.float().abs().amax(1, keepdim=True) / 448
    apart = (weight.float() * scale.float() - source.float()).abs()
    assert bool((apart <= torch.maximum(source.float().abs() / 15, step)).all())


def test_gpu_row_21_scales_multiply_under_the_name_that_says_so(quantized: dict[str, Quantized]) -> None:
    """GPTQModel's `weight_scale_inv` multiplied, and elsewhere that name is of a scale to divide by."""
    names = [tensor.name for cell in quantized.values() for tensor in stored.safetensors(cell.folder)]
    assert not any(name.endswith("_scale_inv") for name in names)
    assert any(name.endswith(".weight_scale") for name in names)


@pytest.mark.parametrize("family", FAMILIES)
def test_gpu_row_6_transformers_fp8_kernels_run_it(
    family: str, quantized: dict[str, Quantized], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a pretended GPU of capability 9.0; torch multiplies FP8 on a CPU too, slowly."""
    unpacked = quantized[family].logits()
    decide = compressed.runs_in_fp8
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    monkeypatch.setattr(compressed, "runs_in_fp8", lambda weights, _: decide(weights, (9, 0)))
    engine = TransformersEngine(quantized[family].folder, quantized[family].folder, "cpu")
    try:
        kernels = engine.logits(TOKENS)
        linears = [m for m in engine.model.modules() if isinstance(m, torch.nn.Linear)]
        in_fp8 = [m for m in linears if type(m).__name__ == "CompressedTensorsFP8Linear"]
        assert engine.dtype == "bfloat16" and f"CompressedTensorsFP8Linear × {len(in_fp8)}" in engine.kernel
        assert len(in_fp8) >= len(linears) - 4
    finally:
        engine.close()
    # in bfloat16 against float32, experts' activations in 16 bits against 8: a token of a random model may
    # choose another expert; what is wrong loses whole nats
    assert float(window_values(unpacked, kernels, TOKENS).kl.mean()) < 0.1


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_loaded_is_what_was_quantized(family: str, quantized: dict[str, Quantized]) -> None:
    """The model in memory is made from the model's parameters, the checkpoint from its files."""
    made = quantized[family].made
    assert made.loss is not None
    assert mean_loss(quantized[family].logits(), TOKENS) == pytest.approx(made.loss(TOKENS), abs=1e-5)
    contents = stored.of_safetensors(
        stored.safetensors(quantized[family].folder), stored.safetensors(quantized[family].source)
    )
    assert contents.names == made.layers and contents.quantized_layers == made.expected_layers


def test_the_kernel_on_a_cpu_is_not_taken_for_the_unquantized_models(
    quantized: dict[str, Quantized],
) -> None:
    cell = quantized["llama"]
    for folder, unpacked in ((cell.folder, True), (cell.source, False)):
        engine = TransformersEngine(folder, folder, "cpu")
        assert engine.kernel.startswith("Linear × 29") and ("unpacked" in engine.kernel) == unpacked
        engine.close()


@pytest.mark.parametrize("family", FAMILIES)
def test_experts_go_and_routers_head_and_embeddings_stay(
    family: str, quantized: dict[str, Quantized]
) -> None:
    cell = quantized[family]
    before, left = weights_left(tensors_of(cell.source)), weights_left(tensors_of(cell.folder))
    assert "experts" not in left
    assert all(left.get(kind) == before.get(kind) for kind in ("router", "head", "embedding"))
    contents = stored.of_safetensors(stored.safetensors(cell.folder), stored.safetensors(cell.source))
    assert not contents.routers and (contents.experts > 0) == (family != "llama")
    biases = sum(
        t.elements for t in stored.safetensors(cell.folder) if t.name.removesuffix(".bias") in contents.names
    )
    assert contents.quantized_parameters + biases + sum(left.values()) == parameters(cell.source)
    ignored = json.loads((cell.folder / "config.json").read_text())["quantization_config"]["ignore"]
    routers = [t.name for t in tensors_of(cell.source) if ".gate." in t.name or ".router." in t.name]
    stay = {name.rpartition(".")[0] for name in routers if name.endswith(".weight")}
    assert stay <= set(ignored)  # by the files' names, which are vLLM's


def test_each_file_is_written_by_itself(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    from quantlab.files import write_json
    from quantlab.formats.copying import copy_tensors, name_shards
    from quantlab.formats.safetensors import header

    whole = write_tiny_model("llama", tmp_path / "whole")
    names = sorted(header(whole / "model.safetensors"))
    half = {name: name for name in names[: len(names) // 2]}
    split = tmp_path / "split"
    split.mkdir()
    for number, part in enumerate((half, {name: name for name in names if name not in half})):
        copy_tensors(whole / "model.safetensors", part, split / f"part-{number}")
    name_shards(split, [split / "part-0", split / "part-1"])
    for path in whole.glob("*.json"):
        write_json(split / path.name, json.loads(path.read_text()))
    one, two = tmp_path / "one", tmp_path / "two"
    assert METHOD.quantize(job_of(whole, one)).layers == METHOD.quantize(job_of(split, two)).layers
    alone = load_file(one / "model.safetensors")
    shards = {name: t for path in two.glob("model-*.safetensors") for name, t in load_file(path).items()}
    assert len(list(two.glob("model-*.safetensors"))) == 2 and shards.keys() == alone.keys()
    assert all(torch.equal(t.view(torch.uint8), shards[n].view(torch.uint8)) for n, t in alone.items())


@pytest.mark.parametrize("family", FAMILIES[:4])
def test_what_it_leaves_is_what_the_planner_says(family: str, quantized: dict[str, Quantized]) -> None:
    config = json.loads((quantized[family].source / "config.json").read_text())
    count = ParameterCount.model_validate(answer(config)["count"])
    goes = [matrix for matrix in count.tensors if METHOD.why_left(count, matrix) is None]
    assert sum(matrix.how_many for matrix in goes) == quantized[family].made.expected_layers
    planned = METHOD.weight_bytes(count, 8, METHOD.Settings())
    assert planned is not None
    there = stored.of_safetensors(
        stored.safetensors(quantized[family].folder), stored.safetensors(quantized[family].source)
    )
    assert planned.bytes_total == pytest.approx(there.total_bytes, rel=0.001)


def test_an_architecture_without_linear_layers_is_refused(tmp_path: Path) -> None:
    source = write_tiny_model("gpt2", tmp_path / "gpt2")
    with pytest.raises(CellFailure, match="none of the layers"):
        METHOD.quantize(job_of(source, tmp_path / "made"))


def test_where_the_model_does_not_fit_beside_it_the_loss_is_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psutil

    class Little:
        available = 2**20

    monkeypatch.setattr(psutil, "virtual_memory", Little)
    made = METHOD.quantize(job_of(write_tiny_model("llama", tmp_path / "m"), tmp_path / "made"))
    assert made.loss is None and any("not compared" in note for note in made.notes)


@pytest.mark.slow
def test_checkpoints_that_gptqmodel_made_still_load(tmp_path: Path) -> None:
    from gptqmodel import GPTQModel
    from gptqmodel.quantization.config import FP8Config

    source, old = write_tiny_model("llama", tmp_path / "model"), tmp_path / "old"
    config: Any = FP8Config()
    config.offload_to_disk = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = GPTQModel.load(str(source), config, device="cpu", dtype=torch.bfloat16)
        model.quantize([{"input_ids": TOKENS.tolist(), "attention_mask": [1] * len(TOKENS)}], batch_size=1)
        model.save(str(old))
    assert json.loads((old / "config.json").read_text())["quantization_config"]["quant_method"] == "fp8"
    logits = {}
    for name, folder in (("old", old), ("source", source)):
        engine = TransformersEngine(folder, source, "cpu")
        logits[name] = engine.logits(TOKENS)
        engine.close()
    assert float(window_values(logits["source"], logits["old"], TOKENS).kl.mean()) < 0.05
