"""Plain rounding to nearest: known answers, relations, and which layers of a model it touches."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from quantlab import methods
from quantlab.methods import Grid
from quantlab.methods._nearest import round_model, round_to_nearest
from quantlab.models.tiny import build, family


def _rounded(weight: torch.Tensor, bits: int, grid: Grid) -> torch.Tensor:
    copy = weight.clone()
    round_to_nearest(copy, bits, grid)
    return copy


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        # scale 2 * 1.5 / 3 = 1, values -2 to 1
        (Grid(4, True), [-1.0, 0.0, 1.0, 1.0]),
        # scale (1.5 + 0.75) / 3 = 0.75, the zero point is 1: values -0.75 to 1.5
        (Grid(4, False), [-0.75, 0.0, 0.75, 1.5]),
    ],
)
def test_known_answers_at_2_bits(grid: Grid, expected: list[float]) -> None:
    weight = torch.tensor([[-0.75, -0.3, 0.6, 1.5]])
    assert _rounded(weight, 2, grid).tolist() == [expected]


def test_more_bits_and_smaller_groups_lose_less() -> None:
    weight = torch.randn(64, 128, generator=torch.Generator().manual_seed(0))

    def error(bits: int, group_size: int, symmetric: bool = False) -> float:
        return float((_rounded(weight, bits, Grid(group_size, symmetric)) - weight).square().mean())

    assert error(8, 32) < error(4, 32) < error(3, 32) < error(2, 32)
    assert error(4, 32) < error(4, 128) <= error(4, -1) * 1.000001
    assert error(4, 32) < error(4, 32, symmetric=True)


def test_a_group_has_at_most_2_to_the_bits_values_and_a_shorter_last_group_its_own() -> None:
    weight = torch.randn(3, 40, generator=torch.Generator().manual_seed(1))
    found = _rounded(weight, 2, Grid(32, False))
    for row in found:
        assert len(set(row[:32].tolist())) <= 4 and len(set(row[32:].tolist())) <= 4
    alone = weight[:, 32:].clone()
    round_to_nearest(alone, 2, Grid(32, False))
    assert torch.equal(found[:, 32:], alone)


def test_weights_on_the_grid_and_zeros_stay() -> None:
    on_grid = torch.tensor([[-8.0, -1.0, 0.0, 7.5]])
    on_grid[0, 3] = 7.0
    assert torch.equal(_rounded(on_grid, 4, Grid(4, False)), on_grid)
    assert torch.equal(_rounded(torch.zeros(2, 4), 4, Grid(4, True)), torch.zeros(2, 4))


def _mixture() -> Any:
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "moe_intermediate_size": 32, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "vocab_size": 64}
    return Qwen3MoeForCausalLM(Qwen3MoeConfig(**sizes, **heads, num_experts=4, num_experts_per_tok=2))


@pytest.mark.parametrize("kinds", [("linears",), ("experts",), ("linears", "experts")])
def test_only_layers_of_the_kinds_are_rounded(kinds: tuple[Any, ...]) -> None:
    model = _mixture()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    rounded = round_model(model, 4, Grid(16, False), kinds)
    changed = {n for n, parameter in model.named_parameters() if not torch.equal(before[n], parameter)}
    assert rounded == sum(before[name].numel() for name in changed)
    assert any("experts" in name for name in changed) == ("experts" in kinds)
    assert any("q_proj" in name for name in changed) == ("linears" in kinds)
    assert not any(part in name for name in changed for part in ("embed", "lm_head", "norm", "gate.weight"))


@pytest.mark.parametrize("name", ["gpt_oss", "gpt2"])
def test_groups_are_of_inputs_whatever_the_order_of_storing(name: str) -> None:
    model = build(family(name))
    stored = {
        "gpt_oss": "model.layers.0.mlp.experts.down_proj",
        "gpt2": "transformer.h.0.mlp.c_fc.weight",
    }[name]
    before = model.get_parameter(stored).detach().clone()
    round_model(model, 4, Grid(32, False))
    turned = before.mT.contiguous()
    for matrix in turned if turned.ndim == 3 else [turned]:
        round_to_nearest(matrix, 4, Grid(32, False))
    assert torch.equal(model.get_parameter(stored), turned.mT)
    along = before.clone()
    for matrix in along if along.ndim == 3 else [along]:
        round_to_nearest(matrix, 4, Grid(32, False))
    assert not torch.equal(along, turned.mT)


@pytest.mark.parametrize(
    ("name", "config", "grid"),
    [
        ("gptq", {"bits": 4, "group_size": 32}, Grid(32, True)),
        ("gptq", {"bits": 4, "group_size": -1, "sym": False}, Grid(-1, False)),
        ("awq", {"bits": 4, "group_size": 64, "zero_point": True}, Grid(64, False)),
        ("autoround", {"bits": 4, "group_size": 128, "sym": True}, Grid(128, True)),
        ("bitsandbytes", {"load_in_4bit": True}, Grid(64, True)),
        ("modelopt", {"quant_algo": "NVFP4", "group_size": None}, Grid(16, True)),
        ("mxfp4", {}, Grid(32, True)),
        (
            "compressed_tensors",
            {"config_groups": {"a": {"weights": {"num_bits": 4, "group_size": 128, "symmetric": False}}}},
            Grid(128, False),
        ),
        ("compressed_tensors", {"config_groups": {"a": {"weights": {"num_bits": 4}}}}, Grid(0, True)),
    ],
)
def test_the_grid_of_somebody_elses_checkpoint(name: str, config: dict[str, Any], grid: Grid) -> None:
    assert methods.load(name).grid_in(config) == grid


def test_auto_round_has_no_zero_points() -> None:
    method = methods.load("autoround")
    assert method.grid(method.Settings()) == Grid(128, True)
