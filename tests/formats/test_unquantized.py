"""What a checkpoint left in 16 bits is counted from its own tensors, whatever they are called."""

from __future__ import annotations

import pytest

from quantlab.formats.unquantized import StoredWeight, kind_of, weights_left
from quantlab.records import Unquantized


def _stored(name: str, kind: str, *shape: int) -> StoredWeight:
    elements = 1
    for size in shape:
        elements *= size
    return StoredWeight(name, kind, tuple(size for size in shape if size != 1), elements)


@pytest.mark.parametrize(
    ("name", "shape", "kind"),
    [
        ("model.layers.0.mlp.experts.gate_up_proj", (4, 64, 32), "experts"),
        ("model.layers.0.mlp.experts.3.down_proj.weight", (32, 64), "experts"),
        ("model.layers.0.block_sparse_moe.input_linear.weight", (4, 64, 32), "experts"),
        ("blk.0.ffn_gate_exps.weight", (32, 64, 4), "experts"),
        ("model.layers.0.mlp.shared_experts.up_proj.weight", (64, 32), "linears"),
        ("model.layers.0.mlp.gate.weight", (4, 32), "router"),
        ("model.layers.0.mlp.shared_expert_gate.weight", (1, 32), "router"),
        ("model.layers.0.feed_forward.router.weight", (4, 32), "router"),
        ("blk.0.ffn_gate_inp.weight", (32, 4), "router"),
        ("model.layers.0.mlp.gate_proj.weight", (64, 32), "linears"),
        ("blk.0.ffn_gate.weight", (32, 64), "linears"),
        ("blk.0.attn_output.weight", (32, 64), "linears"),
        ("transformer.h.0.attn.c_attn.weight", (32, 96), "linears"),
        ("model.language_model.embed_tokens.weight", (100, 32), "embedding"),
        ("token_embd.weight", (32, 100), "embedding"),
        ("lm_head.weight", (100, 32), "head"),
        ("output.weight", (32, 100), "head"),
        ("model.layers.0.input_layernorm.weight", (32,), "norms"),
        ("model.layers.0.self_attn.q_proj.bias", (32,), "norms"),
        ("model.layers.0.mlp.experts.gate_up_proj_bias", (4, 64), "norms"),
        ("model.visual.blocks.0.attn.qkv.weight", (96, 32), "towers"),
        ("v.blk.0.attn_q.weight", (32, 32), "towers"),
        ("model.vision_tower.encoder.layers.0.norm.weight", (32,), "towers"),
        ("model.layers.0.linear_attn.conv1d.weight", (64, 1, 4), "other"),
    ],
)
def test_kind_by_name_and_shape(name: str, shape: tuple[int, ...], kind: str) -> None:
    assert kind_of(_stored(name, "BF16", *shape)) == kind


@pytest.mark.parametrize(
    "packed",
    [
        [("a.b.qweight", "I32", 4, 32), ("a.b.scales", "F16", 2, 32), ("a.b.qzeros", "I32", 2, 4), ("a.b.g_idx", "I32", 32)],
        [("a.b.weight", "U8", 512, 1), ("a.b.weight.absmax", "F32", 16), ("a.b.weight.quant_map", "F32", 16)],
        [("a.b.weight", "I8", 32, 32), ("a.b.SCB", "F32", 32)],
        [("a.b.weight", "F8_E4M3", 32, 32), ("a.b.weight_scale_inv", "F32", 2, 2)],
        [("a.b.weight_packed", "I32", 32, 4), ("a.b.weight_scale", "BF16", 32, 2), ("a.b.weight_shape", "I64", 2)],
        [("a.b.gate_up_proj_blocks", "U8", 4, 64, 2, 16), ("a.b.gate_up_proj_bias", "BF16", 4, 64)],
        [("a.b.weight", "Q4_K", 256, 32)],
    ],
)  # fmt: skip
def test_scales_and_biases_of_a_packed_module_are_not_left_weights(
    packed: list[tuple[str, str, int]],
) -> None:
    assert weights_left(_stored(*parts) for parts in packed) == {}


def test_a_matrix_beside_a_packed_one_in_the_same_module_is_left() -> None:
    tensors = [
        _stored("mlp.experts.gate_up_proj", "F8_E4M3", 4, 64, 32),
        _stored("mlp.experts.gate_up_proj_scale", "F32", 4, 64, 1),
        _stored("mlp.experts.down_proj", "BF16", 4, 32, 64),
    ]
    assert weights_left(tensors) == {"experts": 4 * 32 * 64}


def test_shares() -> None:
    left = Unquantized(weights=1000, by_kind={"experts": 540, "embedding": 90, "norms": 10})
    assert left.share == 0.64
    assert left.promised == 540 and left.share_of_promised == 0.6
    assert Unquantized(weights=100, by_kind={"embedding": 100}).share_of_promised is None
    assert Unquantized(weights=100).share_of_promised == 0
