"""Which layers GPTQModel quantizes, which it has to leave, and families that it knows by older names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from quantlab.methods import Job
from quantlab.methods._gptqmodel_layers import layers_of, odd_layers, stacked_experts
from quantlab.models.gptqmodel_trees import complete_trees
from quantlab.models.tiny import build, family
from quantlab.progress import Progress


def _job(folder: Path, **fields: int) -> Job:
    """Of a Llama with one layer of 64 columns, and the sizes that are given."""
    from transformers import LlamaConfig

    sizes = {"hidden_size": 64, "num_attention_heads": 2, "num_hidden_layers": 1, "vocab_size": 100} | fields
    LlamaConfig(**sizes).save_pretrained(folder)
    return Job(folder, 4, None, np.zeros((1, 4), np.int64), folder, "cpu", 0, Progress(quiet=True))


def test_layers_of_outputs_that_no_kernel_takes_are_left(tmp_path: Path) -> None:
    odd = odd_layers(_job(tmp_path / "odd", intermediate_size=72))
    assert sorted(odd) == ["lm_head", "model.layers.0.mlp.gate_proj", "model.layers.0.mlp.up_proj"]
    assert odd_layers(_job(tmp_path / "even", intermediate_size=80, vocab_size=96)) == []


@pytest.mark.parametrize(("name", "stacked"), [("qwen3_moe", 8), ("kimi_linear", 6), ("llama", 0)])
def test_experts_in_one_tensor_are_told(name: str, stacked: int) -> None:
    model = build(family(name))
    assert len(stacked_experts(model)) == stacked
    assert not layers_of(model).packed and "lm_head" not in layers_of(model).plain


@pytest.mark.parametrize(
    ("name", "expert"),
    [
        ("kimi_linear", "model.layers.1.mlp.experts.7.gate_proj"),
        ("granitemoehybrid", "model.layers.0.block_sparse_moe.experts.7.up_proj"),
        ("nemotron_h", "model.layers.1.mixer.experts.7.down_proj"),
        ("mistral4", "model.layers.0.mlp.experts.7.up_proj"),
    ],
)
def test_the_tree_names_layers_that_are_there(name: str, expert: str) -> None:
    from defuser import convert_model
    from gptqmodel.models.auto import MODEL_MAP

    complete_trees()
    model = build(family(name))
    convert_model(model, cleanup_original=False)
    names = {part for part, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)}
    assert expert in names and not stacked_experts(model)
    kind: Any = MODEL_MAP[name]
    asked = [part.split(":")[0] for entry in _leaves(kind.module_tree[-1]) for part in entry]
    ends = {part.rpartition(".")[2] for part in names}
    # DeepSeek's tree, which Mistral 4 has, names the projection of models without a query's latent too
    asked = [part for part in asked if "norm" not in part and part not in ("gate", "router")]
    assert set(asked) - ends <= ({"q_proj"} if name == "mistral4" else set())


def _leaves(tree: Any) -> list[tuple[str, ...]]:
    """The tuples of layers in GPTQModel's tree of a block."""
    if isinstance(tree, tuple):
        return [tree]
    return [leaf for part in tree.values() for leaf in _leaves(part)]


def test_the_router_of_glm_4_chooses_itself() -> None:
    from defuser.modeling.unfused_moe.glm4_moe import LinearGlm4MoeMoE

    complete_trees()
    model = build(family("glm4_moe"))
    whole = model.model.layers[1].mlp
    apart = LinearGlm4MoeMoE(model.config)
    apart.gate.load_state_dict(whole.gate.state_dict())
    hidden = torch.randn(5, 256, generator=torch.Generator().manual_seed(0))
    _, weights, indices = whole.gate(hidden)
    found_indices, found_weights = apart.route_tokens_to_experts(apart.gate(hidden))
    assert torch.equal(found_indices, indices) and torch.equal(found_weights, weights)
