"""A model whose activations float16 does not hold: refused by name where float16 is computed in, never
measured as a broken file."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from wide_activations import write_wide

from quantlab.errors import CellFailure
from quantlab.hardware.device import find
from quantlab.methods import awq, load
from quantlab.methods._float16 import instead_of
from quantlab.models.loading import load_model
from quantlab.progress import Progress
from quantlab.stages import diverge, reference
from quantlab.stages._float16 import explained
from quantlab.stages._reload import NotFinite, reload, reload_apart
from quantlab.workspace.checkpoint import Checkpoint, Manifest, list_files

TOKENS = np.arange(4, 36, dtype=np.int64)
NAMED = r"awq computes in float16 on cuda:0, and the unquantized model's activations reach \d+,\d+ \(model\.layers"


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_wide(tmp_path_factory.mktemp("wide") / "model")


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_wide(tmp_path_factory.mktemp("half") / "model", "float16")


def _checkpoint(folder: Path) -> Checkpoint:
    about = Manifest(
        model="m", variant="awq-4", method="awq", bits=4, files=list_files(folder), tokenizer="."
    )
    return Checkpoint(folder, about)


def _cell(folder: Path, parameters: int = 4_000_000) -> Any:
    source = SimpleNamespace(parameters=parameters, dtype="bfloat16", trust_remote_code=False)
    return SimpleNamespace(
        root=folder.parent,
        variant=SimpleNamespace(method="awq", bits=4),
        prepared=SimpleNamespace(source=lambda: source, weights=folder),
    )


def test_awq_on_a_gpu_is_refused_before_it_quantizes_with_what_works_instead(wide: Path) -> None:
    model = load_model(wide, False, dtype=torch.bfloat16).eval()
    job: Any = SimpleNamespace(device="cuda:0", bits=4, check_tokens=TOKENS, calibration=TOKENS[None])
    with pytest.raises(CellFailure, match=NAMED) as raised, awq._mended(SimpleNamespace(model=model), job):
        pass
    assert raised.value.kind == "unsupported"
    assert (
        "use autoround or bitsandbytes or gguf or gptq, which compute in the model's own"
        in raised.value.reason
    )


def test_what_computes_in_float16_is_not_offered_instead() -> None:
    assert load("awq").forced_dtype("cuda:0") == "float16" and load("awq").forced_dtype("cpu") is None
    assert "gptq" in instead_of("awq", 4, "cuda:0") and "awq" not in instead_of("gptq", 4, "cuda:0")
    assert "awq" in instead_of("gptq", 4, "cpu") and "baseline" not in instead_of("awq", 16, "cpu")


@pytest.mark.parametrize("apart", [False, True])
def test_a_reload_that_gives_no_numbers_says_in_which_dtype(apart: bool, half: Path, tmp_path: Path) -> None:
    checkpoint = _checkpoint(half)
    with pytest.raises(NotFinite, match=r"logits that are not finite \(in float16\)") as raised:
        reload_apart(checkpoint, "cpu", TOKENS, False, tmp_path) if apart else reload(
            checkpoint, "cpu", TOKENS, False
        )
    assert raised.value.dtype == "float16" and raised.value.kind == "broken_checkpoint"


def test_no_numbers_in_float16_are_put_down_to_the_models_activations(wide: Path) -> None:
    cpu = find("cpu")
    named = explained(_cell(wide), cpu, NotFinite("float16"), TOKENS)
    assert named.kind == "unsupported" and "float16 on cpu" in named.reason and "use " in named.reason
    other = explained(_cell(wide), cpu, NotFinite("bfloat16"), TOKENS)
    assert other.kind == "broken_checkpoint" and "a kernel that computes in it would do that" in other.reason


def test_a_file_that_is_broken_stays_so(tmp_path: Path) -> None:
    from quantlab.models.tiny import write_tiny_model

    folder, failure = write_tiny_model("llama", tmp_path / "model"), NotFinite("float16")
    assert explained(_cell(folder), find("cpu"), failure, TOKENS) is failure
    too_much = explained(_cell(folder, parameters=10**15), find("cpu"), failure, TOKENS)
    assert too_much.kind == "broken_checkpoint" and "were not looked at: the unquantized model needs" in (
        too_much.reason
    )


def test_the_reference_says_how_large_activations_are(wide: Path, tmp_path: Path) -> None:
    model = load_model(wide, False, dtype=torch.float32).eval()
    made = reference._compute(model, np.stack([TOKENS] * 2), tmp_path, find("cpu"), Progress(quiet=True))
    assert made["largest_activation"] > 65504 and made["largest_activation_module"].startswith(
        "model.layers."
    )


def test_an_engine_in_float16_is_refused_before_it_is_compared(wide: Path) -> None:
    from quantlab.models.activations import Largest

    closed = list[bool]()
    engine: Any = SimpleNamespace(dtype="float16", close=lambda: closed.append(True))
    stored: Any = SimpleNamespace(largest_activation=Largest(103821.0, "model.layers.17"))
    gpu = find("cpu").model_copy(update={"device": "cuda:0"})
    with pytest.raises(
        CellFailure, match=r"activations reach 103,821 \(model\.layers\.17\), float16 holds 65,504"
    ):
        diverge._require_range(_cell(wide), gpu, engine, stored)
    assert closed == [True]
    diverge._require_range(_cell(wide), gpu, SimpleNamespace(dtype="bfloat16"), stored)  # type: ignore[arg-type]
    stored.largest_activation = Largest(65504.0, "model.layers.17")
    diverge._require_range(_cell(wide), gpu, engine, stored)
