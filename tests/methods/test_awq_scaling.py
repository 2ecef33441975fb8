"""AWQ's scaling alone, without rounding, leaves a block as it was: groups are found and tried on real classes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from quantlab.methods._awq_groups import (
    Group,
    Trial,
    adds_one,
    changes,
    divide,
    joined,
    split_by_norm,
    storable,
)
from quantlab.methods._awq_scaling import TOLERANCE, Scaling, _search
from quantlab.models.tiny import build, family


class Opened(Scaling):
    """The groups of a tiny model, with its first block's trial at hand."""

    def first(self) -> tuple[Trial, dict[str, list[str]]]:
        kind = next(iter(self._trials))
        return self._trials[kind], self._readers[kind]


def _opened(name: str) -> Opened:
    model = build(family(name))
    return Opened(model, list(model.model.layers), np.arange(5, 37))


def _feed_forward(before: str) -> Group:
    return Group(before, ("mlp.gate_proj", "mlp.up_proj"))


def test_a_norm_that_adds_one_is_recognised_by_what_it_does() -> None:
    from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
    from transformers.models.llama.modeling_llama import LlamaRMSNorm
    from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5RMSNorm

    made: list[Any] = [LlamaRMSNorm(8), Gemma3RMSNorm(8), Qwen3_5RMSNorm(8), torch.nn.LayerNorm(8)]
    assert [adds_one(norm) for norm in made] == [0, 1, 1, 0]


def _product_after_storing(norm: Any, scales: torch.Tensor) -> torch.Tensor:
    """What a norm in bfloat16 and a layer of ones behind it multiply by, scaled."""
    divide(norm, scales)
    return (norm.weight.to(torch.bfloat16).float() + adds_one(norm)) * scales


def test_a_norm_that_adds_one_loses_nothing_when_it_is_stored_in_bfloat16() -> None:
    from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm

    weight = torch.linspace(-0.9, 40, 512).to(torch.bfloat16).float()
    scales = torch.exp(torch.linspace(-3, 5, 512))[torch.randperm(512, generator=torch.manual_seed(0))]
    plain, mended = Gemma3RMSNorm(512), Gemma3RMSNorm(512)
    for norm in (plain, mended):
        norm.weight.data.copy_(weight)
    lost = (_product_after_storing(plain, scales) / (weight + 1) - 1).abs().max()
    kept = (_product_after_storing(mended, storable(mended, scales)) / (weight + 1) - 1).abs().max()
    assert lost > 0.05
    assert kept < 1e-4


def test_a_channel_that_gives_nothing_takes_the_scale_that_is_asked() -> None:
    """At 1 beside scales of a hundredth it would set the step of its whole group."""
    from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm

    norm = Gemma3RMSNorm(3)
    norm.weight.data.copy_(torch.tensor([-1.0, 9.0, -1.5]))
    found = storable(norm, torch.tensor([0.01, 0.02, 0.01]))
    assert found[0] == torch.tensor(0.01) and torch.allclose(
        found, torch.tensor([0.01, 0.02, 0.01]), rtol=0.01
    )
    # what is asked leaves less than a step of a channel: one step is left, above -1 and below it
    assert storable(norm, torch.tensor([1e6, 1e6, 1e6])).tolist() == [1e6, 10 * 2**8, 0.5 * 2**7]


@pytest.mark.parametrize("name", ["llama", "qwen3", "phi3"])
def test_a_plain_block_is_unchanged(name: str) -> None:
    trial, readers = _opened(name).first()
    for before, layers in readers.items():
        assert changes(trial, Group(before, tuple(layers))) < TOLERANCE


@pytest.mark.parametrize("name", ["gemma2", "gemma3_text"])
def test_gemma_scales_behind_the_norm_that_really_feeds_a_layer(name: str) -> None:
    trial, readers = _opened(name).first()
    assert readers["pre_feedforward_layernorm"] == ["mlp.gate_proj", "mlp.up_proj"]
    assert changes(trial, _feed_forward("pre_feedforward_layernorm")) < TOLERANCE
    assert changes(trial, _feed_forward("post_attention_layernorm")) > 0.05


def test_olmo2_has_no_norm_before_its_layers() -> None:
    trial, readers = _opened("olmo2").first()
    assert readers == {}
    assert changes(trial, _feed_forward("post_attention_layernorm")) > 0.05


def test_linear_attention_scales_its_small_gates_too_and_not_its_output() -> None:
    trial, readers = _opened("qwen3_5_text").first()
    quantized = ("linear_attn.in_proj_qkv", "linear_attn.in_proj_z")
    others = tuple(name for name in readers["input_layernorm"] if name not in quantized)
    assert sorted(others) == ["linear_attn.in_proj_a", "linear_attn.in_proj_b"]
    assert changes(trial, Group("input_layernorm", quantized, others)) < TOLERANCE
    assert changes(trial, Group("input_layernorm", quantized)) > 0.01
    assert changes(trial, Group("linear_attn.in_proj_z", ("linear_attn.out_proj",))) > 0.01


def test_a_trial_leaves_the_block_as_it_was() -> None:
    trial, _ = _opened("llama").first()
    before = {name: tensor.clone() for name, tensor in trial.block.named_parameters()}
    changes(trial, _feed_forward("post_attention_layernorm"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in trial.block.named_parameters())


def test_a_router_reads_the_norm_before_the_experts() -> None:
    _, readers = _opened("qwen3_moe").first()
    assert "mlp.gate" in readers["post_attention_layernorm"]


def test_latent_attention_has_two_norms_behind_one_node() -> None:
    trial, readers = _opened("deepseek_v3").first()
    names = {id(module): name for name, module in trial.block.named_modules()}
    behind = ["self_attn.q_b_proj", "self_attn.kv_b_proj"]
    node = {"layers": [trial.block.get_submodule(name) for name in behind], "prev_op": None, "inp": None}
    parts = list(split_by_norm(node, names, readers, dict.fromkeys(behind)))
    assert [[names[id(layer)] for layer in part["layers"]] for part in parts] == [[name] for name in behind]
    for norm, layer in (("q_a_layernorm", "q_b_proj"), ("kv_a_layernorm", "kv_b_proj")):
        assert changes(trial, Group(f"self_attn.{norm}", (f"self_attn.{layer}",))) < TOLERANCE


def test_a_layer_that_is_listed_twice_is_scaled_once() -> None:
    trial, readers = _opened("llama").first()
    names = {id(module): name for name, module in trial.block.named_modules()}
    query, key, value = (trial.block.get_submodule(f"self_attn.{one}_proj") for one in "qkv")
    norm = trial.block.get_submodule("input_layernorm")
    nodes = [{"prev_op": norm, "layers": layers} for layers in ([query, key, key], [key, value])]
    ((group, node),) = joined(nodes, names, readers)
    assert node["layers"] == [query, key, value]
    assert group.layers == ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj") and not group.others


@pytest.mark.parametrize("error", [TypeError, ValueError, RuntimeError])
def test_layers_are_compared_by_their_own_outputs_where_the_module_around_them_does_not_run(
    error: type[Exception],
) -> None:
    """As Kimi Linear's latent attention, which takes no inputs of four dimensions."""
    from quantlab.methods._awq_scaling import _search

    block = torch.nn.ModuleDict({"norm": torch.nn.LayerNorm(4), "up": torch.nn.Linear(4, 4)})
    asked: list[Any] = []

    def search(_: Any, __: Any, **node: Any) -> str:
        asked.append(node)
        if len(asked) == 1:
            raise error("too many values to unpack")
        return "scales"

    class Remembering:
        alone: Counter[str] = Counter()

        def remember(self, *_: Any) -> None:
            pass

    node = {"prev_op": block["norm"], "layers": [block["up"]], "others": (), "module2inspect": block}
    scaling: Any = Remembering()
    assert _search(scaling, search, None, block, node) == "scales"
    assert asked[0]["module2inspect"] is block and asked[1]["kwargs"] == {}
    assert list(asked[1]["module2inspect"].layers) == [block["up"]]


def test_scales_that_were_chosen_without_the_module_around_a_layer_are_said() -> None:
    scaling = _opened("llama")
    block = build(family("llama")).model.layers[0]
    layers = [block.mlp.gate_proj, block.mlp.up_proj]
    asked: list[Any] = []

    def search(_processor: Any, _block: Any, **node: Any) -> Any:
        asked.append(node["module2inspect"])
        if len(asked) == 1:
            raise TypeError("forward() misses layer_type")
        return "found"

    node = {"prev_op": block.post_attention_layernorm, "layers": layers, "others": ()}
    node |= {"module2inspect": block.mlp, "kwargs": {"mask": None}}
    assert _search(scaling, search, None, block, node) == "found"
    assert asked[0] is block.mlp and asked[1] is not block.mlp
    scaling.scaled = 1
    (note,) = scaling.notes()
    assert note == (
        "AWQ chose the scales of these layers by their own outputs, since GPTQModel cannot run the module"
        " around them: mlp.gate_proj × 1, mlp.up_proj × 1."
    )
