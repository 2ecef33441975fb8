"""The text model of a multimodal release is taken out of it and put back, quantized."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from quantlab.errors import CellFailure
from quantlab.methods import Job, load
from quantlab.methods._put_back import put_back, renamed
from quantlab.models.loading import load_model, require_whole
from quantlab.models.text_part import take_out
from quantlab.models.text_view import text_view
from quantlab.models.tiny import write_tiny_model
from quantlab.progress import Progress
from quantlab.workspace.release import Release

FAMILIES = (
    "gemma3",
    "gemma4",
    "kimi_k25",
    "llama4",
    "mistral3",
    "mistral3_ministral3",
    "mistral3_mistral4",
    "qwen2_5_vl",
    "qwen3_5",
    "qwen3_5_moe",
    "qwen3_vl",
    "qwen3_vl_moe",
)
IDS = torch.arange(5, 45)[None]
MODULES = Release(
    model_type="gemma3",
    weights=".",
    files={},
    body="language_model.model.",
    head="language_model.lm_head",
    body_module="model.language_model",
    head_module="lm_head",
    towers=("model.multi_modal_projector", "model.vision_tower"),
    tower_tensors=2,
    tower_parameters=10,
    tower_bytes=20,
)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A tiny release of a family."""
    root = tmp_path_factory.mktemp("releases")
    return cache(lambda family: write_tiny_model(family, root / family))


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model.eval()(input_ids=IDS, use_cache=False).logits
    return found


def text_of(release: Path, folder: Path) -> Release:
    folder.mkdir()
    return take_out(release, folder, folder)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_text_model_says_exactly_what_the_release_says(
    family: str, release: Callable[[str], Path], tmp_path: Path
) -> None:
    found = text_of(release(family), tmp_path / "text")
    whole = load_model(release(family), False, dtype=torch.float32)
    text = load_model(tmp_path / "text", False, dtype=torch.float32)
    assert type(whole).__name__.endswith("ForConditionalGeneration")
    assert type(text).__name__.endswith("ForCausalLM")
    assert torch.equal(logits(whole), logits(text))
    assert found.tower_parameters == sum(
        parameter.numel() for name, parameter in whole.named_parameters() if name.startswith(found.towers)
    )


def test_a_quantized_text_model_goes_back_into_its_release(
    release: Callable[[str], Path], tmp_path: Path
) -> None:
    """Saved by bitsandbytes, which names the text model's layers; the release's class then loads all of it."""
    from transformers import BitsAndBytesConfig

    origin = release("mistral3")
    found = text_of(origin, tmp_path / "text")
    how: dict[str, Any] = {
        "quantization_config": BitsAndBytesConfig(load_in_8bit=True),
        "device_map": {"": "cpu"},
        "dtype": torch.bfloat16,
    }
    load_model(tmp_path / "text", False, **how).save_pretrained(tmp_path / "quantized")
    text = logits(load_model(tmp_path / "quantized", False, device_map={"": "cpu"}))
    put_back(tmp_path / "quantized", origin, found)
    whole = load_model(tmp_path / "quantized", False, device_map={"": "cpu"})
    assert type(whole).__name__ == "Mistral3ForConditionalGeneration"
    assert torch.equal(logits(whole), text)
    before, after = (read(folder) for folder in (origin, tmp_path / "quantized"))
    towers = [name for name in before if found.is_of_tower(name)]
    assert len(towers) == found.tower_tensors > 0
    assert all(torch.equal(before[n], after[n]) and before[n].dtype == after[n].dtype for n in towers)
    assert after["language_model.model.layers.0.mlp.up_proj.weight"].dtype == torch.int8
    assert json.loads((tmp_path / "quantized/config.json").read_text())["model_type"] == "mistral3"


@pytest.mark.parametrize("inputs_first", [True, False])
def test_experts_are_stored_in_the_order_that_the_release_has(
    inputs_first: bool, release: Callable[[str], Path], tmp_path: Path
) -> None:
    """Qwen3-VL's own files have the inputs first, those that transformers saves the outputs."""
    origin = tmp_path / "released"
    shutil.copytree(release("qwen3_vl_moe"), origin)
    stored = load_file(origin / "model.safetensors")
    name = "model.language_model.layers.0.mlp.experts.gate_up_proj"
    upright = stored[name] if stored[name].shape[1:] == (128, 256) else stored[name].mT
    if inputs_first == (stored[name].shape[1:] == (128, 256)):
        stored = {n: t.mT.contiguous() if ".experts." in n else t for n, t in stored.items()}
        save_file(stored, origin / "model.safetensors", {"format": "pt"})
    assert stored[name].shape[1:] == ((256, 128) if inputs_first else (128, 256))
    found = text_of(origin, tmp_path / "text")
    apart = read(tmp_path / "text")
    for expert in (0, 7):
        gate, up = upright[expert].chunk(2)
        assert torch.equal(apart[f"model.layers.0.mlp.experts.{expert}.gate_proj.weight"], gate)
        assert torch.equal(apart[f"model.layers.0.mlp.experts.{expert}.up_proj.weight"], up)
    put_back(tmp_path / "text", origin, found)
    after = read(tmp_path / "text")
    assert after.keys() == stored.keys() and all(torch.equal(stored[n], after[n]) for n in stored)


def read(folder: Path) -> dict[str, torch.Tensor]:
    return {n: t for path in folder.glob("*.safetensors") for n, t in load_file(path).items()}


@pytest.mark.parametrize("family", ["qwen3_5", "qwen3_vl_moe"])
def test_a_text_model_that_comes_back_unchanged_is_the_release(
    family: str, release: Callable[[str], Path], tmp_path: Path
) -> None:
    origin = release(family)
    found = text_of(origin, tmp_path / "text")
    (tmp_path / "text/tokenizer.json").write_text("{}")  # what a library saved in the tokenizer's place
    put_back(tmp_path / "text", origin, found)
    require_whole(tmp_path / "text", False)
    before, after = read(origin), read(tmp_path / "text")
    assert before.keys() == after.keys() and all(torch.equal(before[n], after[n]) for n in before)
    for name in ("config.json", "tokenizer.json"):
        assert json.loads((origin / name).read_text()) == json.loads((tmp_path / "text" / name).read_text())


def test_a_release_is_shown_as_its_text_model_to_a_library_that_does_not_know_it(
    release: Callable[[str], Path], tmp_path: Path
) -> None:
    """As GPTQModel is: the checkpoint of the release, with the names that the text model's checkpoint had."""
    origin = release("mistral3")
    found = text_of(origin, tmp_path / "text")
    shutil.copytree(tmp_path / "text", tmp_path / "quantized")
    path = tmp_path / "quantized/config.json"
    said = {"quant_method": "gptq", "modules_in_block_to_quantize": [["model.layers.0.mlp.up_proj"]]}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": said}))
    put_back(tmp_path / "quantized", origin, found)
    with text_view(tmp_path / "quantized", False) as view:
        before, after = read(tmp_path / "text"), read(view)
        config = json.loads((view / "config.json").read_text())
        assert (view / "tokenizer.json").is_file()
    assert before.keys() == after.keys() and all(torch.equal(before[n], after[n]) for n in before)
    assert config["model_type"] == "mistral"
    assert config["quantization_config"] == {**said, "block_name_to_quantize": "model.layers"}
    assert not view.exists()
    with text_view(tmp_path / "text", False) as same:
        assert same == tmp_path / "text"


def test_a_tensor_that_the_release_has_no_place_for_is_refused(tmp_path: Path) -> None:
    save_file(
        {"lm_head.weight": torch.zeros(1), "extra.weight": torch.zeros(1)}, tmp_path / "model.safetensors"
    )
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CellFailure, match=r"holds extra\.weight, which a gemma3 release lacks"):
        put_back(tmp_path, tmp_path, MODULES)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            {"quant_method": "bitsandbytes"},
            {"llm_int8_skip_modules": ["lm_head", "model.multi_modal_projector", "model.vision_tower"]},
        ),
        (
            {"quant_method": "awq", "modules_to_not_convert": ["model.layers.0.mlp.gate"]},
            {
                "modules_to_not_convert": [
                    "model.language_model.layers.0.mlp.gate",
                    "model.multi_modal_projector",
                    "model.vision_tower",
                ]
            },
        ),
        ({"quant_method": "gptq"}, {"block_name_to_quantize": "model.language_model.layers"}),
        (
            {"quant_method": "gptq", "modules_in_block_to_quantize": [["model.layers.0.mlp.up_proj"]]},
            {"modules_in_block_to_quantize": [["model.language_model.layers.0.mlp.up_proj"]]},
        ),
        (
            {"quant_method": "auto-round", "block_name_to_quantize": "model.layers"},
            {"block_name_to_quantize": "model.language_model.layers"},
        ),
    ],
    ids=["bitsandbytes", "awq", "gptq", "gptq that leaves some", "auto-round"],
)
def test_modules_are_named_as_the_release_names_them(said: dict[str, Any], expected: dict[str, Any]) -> None:
    found = renamed(said, MODULES)
    assert found == {**said, **found} and {key: found[key] for key in expected} == expected


def test_codes_of_experts_stay_expert_by_expert(release: Callable[[str], Path], tmp_path: Path) -> None:
    """Only experts in 16 bits go back into one tensor: codes have a scale for each expert."""
    origin = release("mistral3_mistral4")
    found = text_of(origin, tmp_path / "text")
    (tmp_path / "fp8").mkdir()
    settings = load("fp8").Settings()
    windows = np.zeros((1, 8), np.int64)
    job = Job(tmp_path / "text", 8, settings, windows, tmp_path / "fp8", "cpu", 0, Progress(quiet=True))
    layers = load("fp8").quantize(job).layers
    put_back(tmp_path / "fp8", origin, found)
    after = read(tmp_path / "fp8")
    codes = {name.removesuffix(".weight") for name, t in after.items() if t.dtype == torch.float8_e4m3fn}
    assert len(codes) == len(layers) and {f"{name}.weight_scale" for name in codes} <= after.keys()
    assert "language_model.model.layers.0.mlp.experts.7.gate_proj" in codes
    assert not any(name.endswith("experts.gate_up_proj") for name in after)
