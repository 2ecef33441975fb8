"""Parts swapped one at a time, on tiny models."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)

from quantlab.errors import CellFailure
from quantlab.hardware.device import find
from quantlab.optimize.swap import NOTHING
from quantlab.progress import Progress
from quantlab.stages import quantize, reference, sensitivity
from quantlab.stages.sensitivity import REST, WHOLE, Swap
from quantlab.workspace.cell import Cell
from quantlab.workspace.items import Items

IDS = torch.arange(3, 19)[None]


def _model() -> Any:
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 2,
        "num_hidden_layers": 3,
        "vocab_size": 64,
    }
    return LlamaForCausalLM(LlamaConfig(**sizes)).eval()


def _logits(model: Any) -> np.ndarray:
    with torch.inference_mode():
        return model(input_ids=IDS, use_cache=False).logits[0].numpy()


@pytest.mark.parametrize("linears", [False, True])
def test_only_the_part_that_differs_costs(linears: bool) -> None:
    plain, other = _model(), _model()
    with torch.no_grad():
        other.model.layers[1].mlp.up_proj.weight += 0.1
    found = dict(Swap(plain, other, linears).logits(IDS))
    assert len(found) == (3 * 7 if linears else 3) + 3
    name = "block 1 mlp.up_proj" if linears else "block 1"
    changed = {part for part, logits in found.items() if not np.array_equal(logits, _logits(plain))}
    assert changed == {name, WHOLE} and np.array_equal(found[name], found[WHOLE])


def test_a_swapped_block_gives_what_a_model_with_that_block_gives_and_both_models_are_left_as_they_were() -> (
    None
):
    plain, other = _model(), _model()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += 0.02
    before, theirs = _logits(plain), _logits(other)
    by_hand = copy.deepcopy(plain)
    by_hand.model.layers[2] = copy.deepcopy(other.model.layers[2])
    swap = Swap(plain, other, linears=False)
    for _ in range(2):
        found = dict(swap.logits(IDS))
        assert np.array_equal(found["block 2"], _logits(by_hand)) and np.array_equal(found[WHOLE], theirs)
        assert (
            np.array_equal(found[NOTHING], before)
            and not np.array_equal(found[REST], before)
            and np.array_equal(_logits(plain), before)
        )


def test_linear_layers_of_a_scaled_block_are_refused() -> None:
    plain, other = _model(), _model()
    with torch.no_grad():
        other.model.layers[0].input_layernorm.weight *= 2
    with pytest.raises(CellFailure, match="means nothing alone"):
        Swap(plain, other, linears=True)


def _mixture() -> Any:
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "num_hidden_layers": 2,
    }
    return MixtralForCausalLM(MixtralConfig(**sizes, vocab_size=64, num_local_experts=4)).eval()


def test_fused_experts_are_one_part() -> None:
    plain, other = _mixture(), _mixture()
    with torch.no_grad():
        other.model.layers[1].mlp.experts.down_proj += 0.1
    found = dict(Swap(plain, other, linears=True).logits(IDS))
    changed = {part for part, logits in found.items() if not np.array_equal(logits, found[NOTHING])}
    assert changed == {"block 1 mlp.experts", WHOLE} and np.array_equal(
        found["block 1 mlp.experts"], found[WHOLE]
    )
    assert "block 0 self_attn.q_proj" in found and not any("gate" in part for part in found)


def test_what_no_part_holds_is_named() -> None:
    plain, other = _mixture(), _mixture()
    with torch.no_grad():
        other.model.layers[1].mlp.gate.weight[0, 0] = float("nan")  # the router, no linear layer
    with pytest.raises(
        CellFailure,
        match=r"mlp\.gate\.weight of block 1 is quantized and is neither a linear layer nor a matrix",
    ):
        Swap(plain, other, linears=True)


def test_the_layers_of_gpt2_are_linear_too() -> None:
    plain, other = (
        GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=64)).eval() for _ in range(2)
    )
    other.load_state_dict(plain.state_dict())
    with torch.no_grad():
        other.transformer.h[0].mlp.c_fc.weight += 0.1
    found = dict(Swap(plain, other, linears=True).logits(IDS))
    assert {part for part, logits in found.items() if not np.array_equal(logits, found[NOTHING])} == {
        "block 0 mlp.c_fc",
        WHOLE,
    }


@pytest.fixture(scope="module")
def cell(workspace: Path) -> Cell:
    quiet = Progress(quiet=True)
    if not (reference.folder_of(workspace, "small") / "reference.json").exists():
        reference.run(workspace, "small", find("cpu"), quiet)
    found = Cell(workspace, "small", "baseline-16")
    if not found.checkpoint_folder.exists():
        quantize.run(found, find("cpu"), quiet)
    return found


@pytest.mark.slow
def test_nothing_swapped_is_exactly_the_reference_and_every_part_of_itself_is_free(cell: Cell) -> None:
    record = sensitivity.run(cell, find("cpu"), Progress(quiet=True), windows=2)
    assert (
        record.nothing_swapped_nats == 0
        and record.whole is not None
        and record.whole.value == 0
        and record.notes == ()
    )
    assert [part.part for part in record.parts] == [f"block {i}" for i in range(4)] + [REST]
    assert {part.kl_divergence_nats.value for part in record.parts} == {0.0}
    stored = reference.Reference(reference.folder_of(cell.root, cell.model))
    assert (record.reference_sha256, record.reference_dtype) == (stored.sha256, "float32")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tensor", "part"), [("model.layers.2.mlp.up_proj.weight", "block 2"), ("model.norm.weight", "the rest")]
)
def test_what_is_not_finite_names_window_and_part(
    tensor: str, part: str, cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = sensitivity.dense_model

    def broken(*arguments: Any) -> Any:
        model = honest(*arguments)
        with torch.no_grad():
            model.get_parameter(tensor).fill_(float("inf"))
        return model

    monkeypatch.setattr(sensitivity, "dense_model", broken)
    monkeypatch.setattr(Items, "get", lambda *_: None)
    with pytest.raises(
        CellFailure, match=f"the logits of window 1 of the evaluation text with {part} swapped are not finite"
    ):
        sensitivity.run(cell, find("cpu"), Progress(quiet=True), windows=1)
